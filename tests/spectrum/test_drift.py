"""Drift: shares and maps from band moments against numpy, scipy and closed forms on the latents themselves."""

import numpy as np
import pytest
import scipy.fft
import torch

from smtool.spectrum.drift import AffineMap, PairMoments, fit_channels, fit_linear, unexplained
from smtool.spectrum.jackknife import student_t_quantile

C, H, W = 3, 6, 8


def latents(rng, count=5):
    """Two sets of latents that share a part, with means far from 0: (earlier, later), (N, C, H, W) each."""
    shared = rng.standard_normal((count, C, H, W))
    mixing = np.array([[1.0, 0.5, 0.0], [0.0, 1.2, 0.3], [0.4, 0.0, 0.9]])
    earlier = shared + 0.2 * rng.standard_normal(shared.shape) + np.array([3.0, -1.0, 0.5])[:, None, None]
    later = np.einsum("ij,njhw->nihw", mixing, shared) + 0.1 * rng.standard_normal(shared.shape) - 2.0
    return torch.from_numpy(earlier), torch.from_numpy(later)


def merged(earlier, later):
    parts = [PairMoments.of(y[None], x[None]) for y, x in zip(earlier, later, strict=True)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return parts, total


def columns(x):
    """(N, C, H, W) -> (positions, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, C).numpy()


def band(u, v):
    """Band of a DCT cell, in words of the definition: four bands of equal width up to the Nyquist frequency of an axis."""
    return min(3, int(4 * np.hypot(u / H, v / W)))


def shares(earlier, mapped, weights):
    """(total, bands, channels, cells) of the share that `mapped` misses, by loops over DCT cells."""
    error = scipy.fft.dctn(earlier - mapped, axes=(-2, -1), norm="ortho") ** 2
    centred = earlier - earlier.mean((0, 2, 3), keepdims=True)
    whole = scipy.fft.dctn(centred, axes=(-2, -1), norm="ortho") ** 2
    missed, of = np.zeros((4, C)), np.zeros((4, C))
    for u in range(H):
        for v in range(W):
            missed[band(u, v)] += error[:, :, u, v].sum(0)
            of[band(u, v)] += whole[:, :, u, v].sum(0)
    return (
        (missed * weights).sum() / (of * weights).sum(), (missed * weights).sum(1) / (of * weights).sum(1),
        missed.sum(0) / of.sum(0), missed / of,
    )  # fmt: skip


def test_the_maps_are_numpys_least_squares(rng):
    earlier, later = latents(rng)
    _, total = merged(earlier, later)
    y, x = columns(earlier), columns(later)
    with_ones = np.column_stack([x, np.ones(len(x))])
    solution = np.linalg.lstsq(with_ones, y, rcond=None)[0]
    linear = fit_linear(total)
    np.testing.assert_allclose(linear.matrix.numpy(), solution[:C].T, atol=1e-10)
    np.testing.assert_allclose(linear.shift.numpy(), solution[C], atol=1e-10)
    each = fit_channels(total)
    for channel in range(C):
        scale, shift = np.polyfit(x[:, channel], y[:, channel], 1)
        assert each.scale[channel] == pytest.approx(scale, abs=1e-10)
        assert each.shift[channel] == pytest.approx(shift, abs=1e-10)
    correlations = [np.corrcoef(x[:, channel], y[:, channel])[0, 1] for channel in range(C)]
    np.testing.assert_allclose(total.correlation().numpy(), correlations, atol=1e-10)
    backward = fit_linear(total.swapped())
    expected = np.linalg.lstsq(np.column_stack([y, np.ones(len(y))]), x, rcond=None)[0]
    np.testing.assert_allclose(backward.matrix.numpy(), expected[:C].T, atol=1e-10)


@pytest.mark.parametrize("which", ["identity", "channels", "linear"])
def test_shares_and_intervals_are_those_of_loops_over_cells_and_over_left_out_images(rng, which):
    earlier, later = latents(rng)
    parts, total = merged(earlier, later)
    found = {"identity": AffineMap.identity(C), "channels": fit_channels(total), "linear": fit_linear(total)}[which]
    mapped = np.einsum("ij,njhw->nihw", found.matrix.numpy(), later.numpy()) + found.shift.numpy()[:, None, None]
    np.testing.assert_allclose(found(later).numpy(), mapped, atol=1e-12)
    weights = np.array([1.0, 4.0, 0.25])
    value, half_width = unexplained(parts, found, torch.from_numpy(weights))
    y = earlier.numpy()
    for ours, expected in zip(value, shares(y, mapped, weights), strict=True):
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9)
    without = np.array([shares(np.delete(y, i, 0), np.delete(mapped, i, 0), weights)[0] for i in range(len(y))])
    error = np.sqrt((len(y) - 1) / len(y) * ((without - without.mean()) ** 2).sum())
    assert half_width.total.item() == pytest.approx(student_t_quantile(0.975, len(y) - 1) * error, rel=1e-6)


def test_the_same_latents_miss_nothing_and_unrelated_ones_miss_all_after_a_map(rng):
    earlier, _ = latents(rng, 40)
    parts, _ = merged(earlier, earlier)
    value, _ = unexplained(parts, AffineMap.identity(C), torch.ones(C))
    assert value.total.item() < 1e-12
    unrelated = torch.from_numpy(rng.standard_normal(earlier.shape)) + 5
    parts, total = merged(earlier, unrelated)
    assert unexplained(parts, fit_linear(total), torch.ones(C))[0].total.item() == pytest.approx(1, abs=0.02)
    assert unexplained(parts, AffineMap.identity(C), torch.ones(C))[0].total.item() > 2


def test_a_map_and_its_inverse_return_latents_and_a_lost_channel_has_no_inverse(rng):
    x = torch.from_numpy(rng.standard_normal((2, C, H, W)))
    found = AffineMap(torch.tensor([[2.0, 0.5, 0], [0, -1, 0.2], [0.3, 0, 1]], dtype=torch.float64), torch.arange(3.0).double())
    torch.testing.assert_close(found.inverse()(found(x)), x, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="singular"):
        AffineMap(torch.diag(torch.tensor([1.0, 0.0, 2.0]).double()), torch.zeros(C).double()).inverse()


def test_constant_and_repeated_later_channels_have_finite_maps(rng):
    earlier, later = latents(rng)
    later[:, 1], later[:, 2] = 4.0, later[:, 0]
    _, total = merged(earlier, later)
    assert fit_channels(total).scale[1] == total.correlation()[1] == 0
    assert fit_channels(total).shift[1] == pytest.approx(earlier[:, 1].mean().item())
    assert fit_linear(total).matrix.abs().max() < 10


def test_a_channel_without_variance_has_no_share(rng):
    earlier, later = latents(rng)
    earlier[:, 0] = 2.0
    parts, total = merged(earlier, later)
    value, _ = unexplained(parts, fit_channels(total), torch.ones(C))
    assert value.channels[0].isnan() and value.channels[1:].isfinite().all()
    assert value.total.isfinite()


def test_latents_of_unlike_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape are needed"):
        PairMoments.of(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))
