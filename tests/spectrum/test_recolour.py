"""Recolouring compared with scipy and with loops over cells; the law that it gives to fields of known exponent; its limits."""

import json
import math

import numpy as np
import pytest
import scipy.fft
import scipy.interpolate
import torch

from smtool.spectrum import PHYSICAL, RadialPower, fit_delta, fit_power_law, recolouring, spectrum_of
from smtool.spectrum.radial_bands import band_count, band_frequency, has_bands
from smtool.spectrum.recolour import LARGEST_GAIN, Recolouring


def field(count, channels, size, exponent, *, seed):
    """Fields of power f^-exponent, the corner of a larger canvas: (count, channels, h, w) float64."""
    height, width = (4 * side for side in size)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = np.inf if exponent > 0 else 1.0
    noise = np.random.default_rng(seed).standard_normal((count, channels, height, width))
    canvas = np.fft.ifft2(np.fft.fft2(noise) * frequency ** (-exponent / 2)).real
    return torch.from_numpy(canvas[..., : size[0], : size[1]])


def normalized(latents):
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3), unbiased=False)
    return (latents - mean[:, None, None]) / std[:, None, None], mean, std


def fitted(latents, images, flatten):
    """Normalized latents, and the filter that is measured on them."""
    plain, mean, std = normalized(latents)
    return plain, recolouring(RadialPower.of(latents, images), mean, std, flatten)


@pytest.fixture(scope="module")
def images():
    return field(48, 3, (64, 64), 2.2, seed=0)


@pytest.fixture(scope="module")
def latents():
    """Two channels of 16 x 16 cells, one steep and one nearly white, with means and gains."""
    steep, flat = (field(48, 1, (16, 16), a, seed=1) for a in (2.5, 0.4))
    return torch.cat([3.0 + 5.0 * steep / steep.std(), -7.0 + 0.2 * flat / flat.std()], dim=1)


def band_of(u, v, height, width, edges):
    """Band of one cell by spectrum.md#power-spectrum: (0, 0) alone, rings with these upper edges, the corner."""
    radius = math.hypot(u / height, v / width) * min(height, width)      # in units of 0.5 / n cycles per pixel
    if (u, v) == (0, 0):
        return 0
    if (u / height) ** 2 + (v / width) ** 2 > 1:
        return len(edges) + 2
    return 1 + sum(radius >= edge for edge in edges)


@pytest.mark.parametrize(
    ("size", "edges"), [((8, 8), [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]), ((3, 3), [1.5, 2.5]), ((4, 6), [1.5, 2.5, 3.5])]
)
def test_band_powers_equal_a_loop_over_scipys_cells(size, edges):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 2, *size, generator=generator) + 3
    x = torch.randn(4, 3, 24, 24, generator=generator)
    found = RadialPower.of(z, x)
    cells: dict[int, list[tuple[int, int]]] = {}
    for u in range(size[0]):
        for v in range(size[1]):
            cells.setdefault(band_of(u, v, *size, edges), []).append((u, v))
    bands = [cells[band] for band in sorted(cells)]
    centred = scipy.fft.dctn((z - z.mean((0, 2, 3), keepdim=True)).double().numpy(), axes=(-2, -1), norm="ortho")
    of_images = scipy.fft.dctn(x.double().numpy(), axes=(-2, -1), norm="ortho") * math.sqrt(size[0] * size[1]) / 24
    for c in range(2):
        expected = [np.mean([(centred[:, c, u, v] ** 2).mean() for u, v in band]) for band in bands]
        power = found.latent_power(z.double().mean((0, 2, 3)))[c]
        np.testing.assert_allclose(power.numpy(), expected, rtol=1e-5)
    expected = [np.mean([(of_images[:, :, u, v] ** 2).mean() for u, v in band]) for band in bands[1:]]
    np.testing.assert_allclose(found.image_power().numpy(), expected, rtol=1e-10)
    assert band_count(size).tolist() == [len(band) for band in bands]
    means = [np.exp(np.mean([np.log(math.hypot(u / size[0], v / size[1]) / 2) for u, v in band])) for band in bands[1:]]
    np.testing.assert_allclose(band_frequency(size).numpy(), [0.0, *means], rtol=1e-12)


def test_powers_of_parts_merge_to_those_of_all(images, latents):
    whole = RadialPower.of(latents, images)
    parts = RadialPower.of(latents[:20], images[:0]) + RadialPower.of(latents[20:], images)
    torch.testing.assert_close(parts.latents, whole.latents)
    torch.testing.assert_close(parts.images, whole.images)
    assert (parts.num_latents, parts.num_images) == (48, 48)
    with pytest.raises(ValueError, match=r"\(16, 16\) latents .* and of \(8, 8\) latents"):
        whole + RadialPower.of(latents[..., :8, :8], images)


def test_the_power_of_mirrored_images_is_that_of_the_images(images, latents):
    """So a cache with mirrored images needs to measure only the plain ones."""
    a, b = (RadialPower.of(latents, x).images for x in (images, images.flip(-1)))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=0)


def test_filtering_equals_scipys_transform_with_gains_interpolated_by_numpy(images, latents):
    plain, filtered = fitted(latents, images, 1.0)
    spectrum = scipy.fft.dctn(plain.numpy(), axes=(-2, -1), norm="ortho")
    knots = np.log(band_frequency((16, 16)).numpy()[1:])
    for c in range(2):
        gain = scipy.interpolate.interp1d(knots, np.log(filtered.gains[c, 1:].numpy()), fill_value="extrapolate")
        for u in range(16):
            for v in range(16):
                spectrum[:, c, u, v] *= np.exp(gain(np.log(math.hypot(u, v) / 32))) if u or v else filtered.gains[c, 0].item()
    expected = scipy.fft.idctn(spectrum, axes=(-2, -1), norm="ortho")
    np.testing.assert_allclose(filtered.apply(plain).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_undoing_returns_the_latents_in_their_dtype(images, latents, dtype, tolerance):
    for flatten in (0.0, 1.0, "white"):
        plain, filtered = fitted(latents, images, flatten)
        again = filtered.undo(filtered.apply(plain.to(dtype)))
        assert again.dtype == dtype
        torch.testing.assert_close(again, plain.to(dtype), rtol=0, atol=tolerance)
    plain, filtered = fitted(field(48, 1, (16, 16), 6.0, seed=1), images, "white")
    assert filtered.gains.max() / filtered.gains.min() > 150
    torch.testing.assert_close(filtered.undo(filtered.apply(plain.to(dtype))), plain.to(dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize("flatten", [-0.5, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [(8, 8), (16, 16), (12, 20)])
def test_recoloured_latents_have_the_asked_delta_in_every_channel_and_variance_1(flatten, size):
    images = field(48, 3, (4 * size[0], 4 * size[1]), 2.2, seed=0)
    latents = torch.cat([field(48, 1, size, a, seed=1) for a in (2.5, 0.4)], dim=1)
    plain, filtered = fitted(latents, images, flatten)
    recoloured = filtered.apply(plain)
    for channel in (slice(0, 1), slice(1, 2), slice(None)):
        assert fit_delta(images, recoloured[:, channel]).delta == pytest.approx(flatten, abs=0.05)
    np.testing.assert_allclose(recoloured.std((0, 2, 3)).numpy(), 1.0, atol=0.01)
    assert recoloured.mean((0, 2, 3)).abs().max() < 1e-10
    assert abs(fit_delta(images, plain[:, :1]).delta - fit_delta(images, plain[:, 1:]).delta) > 1.5


@pytest.mark.parametrize("size", [(3, 3), (8, 8), (16, 16)])
def test_white_latents_have_equal_power_in_all_bands(size):
    latents = field(400, 1, size, 2.0, seed=2)
    plain, filtered = fitted(latents, torch.zeros(1, 3, 64, 64), "white")
    recoloured = filtered.apply(plain)
    power = RadialPower.of(recoloured, torch.zeros(1, 3, 64, 64)).latent_power(torch.zeros(1))[0]
    np.testing.assert_allclose(power.numpy(), 1.0, atol=0.05)
    assert power[0].item() == pytest.approx(1.0, abs=0.02)      # cell (0, 0) has the power of the lowest ring
    if size == (16, 16):
        assert fit_power_law(spectrum_of(recoloured, PHYSICAL), highest=0.5).exponent == pytest.approx(0.0, abs=0.05)


def test_gains_have_no_jumps_between_cells(images):
    """Ordered by frequency, neighbouring cells' gains differ by at most the steepest slope between bands allows."""
    latents = field(48, 1, (32, 32), 2.5, seed=1)
    _, filtered = fitted(latents, images, "white")
    u, v = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    radius, gain = np.hypot(u, v).ravel()[1:], filtered.cell_gains[0].numpy().ravel()[1:]
    order = np.argsort(radius, kind="stable")
    knots = np.log(band_frequency((32, 32)).numpy()[1:])
    steepest = np.abs(np.diff(np.log(filtered.gains[0, 1:].numpy())) / np.diff(knots)).max()
    steps, distance = np.abs(np.diff(np.log(gain[order]))), np.diff(np.log(radius[order]))
    assert steepest < 4 and (steps <= steepest * distance + 1e-12).all()


def test_an_empty_band_gets_at_most_the_largest_gain_and_the_variance_stays_1(images):
    """Latents without content above a quarter of Nyquist but rounding noise, as an oversampled latent has."""
    spectrum = scipy.fft.dctn(field(48, 1, (16, 16), 1.0, seed=3).numpy(), axes=(-2, -1), norm="ortho")
    u, v = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    spectrum[..., np.hypot(u, v) > 4] = 0.0
    noise = 1e-4 * torch.randn(48, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    latents = torch.from_numpy(scipy.fft.idctn(spectrum, axes=(-2, -1), norm="ortho"))
    for noisy in (latents, latents + noise):
        plain, filtered = fitted(noisy, images, "white")
        assert filtered.gains.max() == LARGEST_GAIN and filtered.num_limited >= 5
        assert filtered.apply(plain).std().item() == pytest.approx(1.0, abs=0.1)
        assert filtered.apply(noise / noisy.std()).std() < 0.1      # far below the variance of 1 that the law asks for
    assert fitted(latents + 0.05 * noise / noise.std(), images, "white")[1].num_limited == 0


def test_a_filter_survives_json_and_refuses_latents_of_another_shape(images, latents):
    plain, filtered = fitted(latents, images, "white")
    again = Recolouring.from_metadata(json.loads(json.dumps(filtered.to_metadata())))
    assert (again.flatten, again.size) == ("white", (16, 16))
    assert torch.equal(again.apply(plain), filtered.apply(plain))
    for wrong in (plain[..., :8, :8], plain[:, :1]):
        with pytest.raises(ValueError, match=r"recolouring was measured on latents of \(2, 16, 16\), not"):
            filtered.apply(wrong)


def test_small_grids_and_images_without_power_are_refused(images, latents):
    for size, words in ((2, "at least 8x8 cells, not 2x2"), (4, 'at least 8x8 cells, not 4x4; "white" needs 3x3')):
        with pytest.raises(ValueError, match=f"flatten = 1.0 needs latents of {words}"):
            recolouring(RadialPower((size, size), (64, 64), 1, 1, torch.ones(1, 1), torch.ones(1)), *torch.ones(2, 1), 1.0)
    with pytest.raises(ValueError, match="no power"):
        fitted(latents, torch.zeros(4, 3, 64, 64), 1.0)
    assert [has_bands(size, (8, 8)) for size in ((2, 2), (3, 3), (8, 8), (9, 8))] == [False, True, True, False]
