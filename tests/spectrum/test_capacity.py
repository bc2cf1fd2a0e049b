"""Compare reverse water-filling with closed forms, a root found by scipy, and the values of spectrum.md#health."""

import math

import numpy as np
import pytest
import scipy.fft
import scipy.optimize
import torch
from torch.testing import assert_close

from smtool.spectrum import BandMoments, band_moments, band_of_cell, capacity_at, channel_capacity, idct2


def white(num_channels: int, *, num_images: int = 64, side: int = 16) -> torch.Tensor:
    return torch.randn(num_images, num_channels, side, side, generator=torch.Generator().manual_seed(0))


def moments_of(covariance: torch.Tensor, cells: list[int]) -> BandMoments:
    """Moments with exactly these covariances, (K, C, C)."""
    count = torch.tensor(cells, dtype=torch.float64)
    return BandMoments(2, torch.zeros(covariance.shape[1], 1, 1), covariance * count[:, None, None], count)


def test_the_covariance_of_a_band_equals_a_loop_over_cells(rng):
    x = rng.standard_normal((5, 3, 8, 6)) + 2
    cells = scipy.fft.dctn(x, axes=(-2, -1), norm="ortho")
    cells -= cells.mean(0)
    expected, count = np.zeros((4, 3, 3)), np.zeros(4)
    for u in range(8):
        for v in range(6):
            band = min(int(4 * math.hypot(u / 8, v / 6)), 3)
            count[band] += 1
            for image in cells:
                expected[band] += np.outer(image[:, u, v], image[:, u, v])
    found = band_moments(torch.from_numpy(x), 4)
    np.testing.assert_array_equal(found.cells.numpy(), count)
    np.testing.assert_allclose(found.covariance.numpy(), expected / (count * 4)[:, None, None], rtol=0, atol=1e-12)


def test_adding_batches_equals_all_at_once(rng):
    x = torch.from_numpy(rng.standard_normal((7, 4, 8, 8)) + 50)
    parts = band_moments(x[:2]) + band_moments(x[2:3]) + band_moments(x[3:])
    assert parts.num_images == 7
    assert_close(parts.covariance, band_moments(x).covariance, rtol=1e-9, atol=1e-12)
    assert_close(parts.mean, band_moments(x).mean, rtol=1e-12, atol=1e-12)


def test_white_channels_carry_the_documented_number_of_bits():
    """16 x 16 x 16 white coefficients at 1 %: 13 607 bits in closed form, 13 594 measured (spectrum.md#health)."""
    found = capacity_at(band_moments(white(16)), 0.01)
    assert found.bits_per_image == pytest.approx(13594, abs=15)
    assert found.bits_per_channel.sum().item() == pytest.approx(found.bits_per_image, rel=1e-12)
    assert found.bits_per_channel.tolist() == pytest.approx([850] * 16, rel=0.01)


def test_copies_and_dead_channels_carry_nothing():
    """6 800 bits for both; a sum over the channels of the copies would give 13 561 (spectrum.md#health)."""
    copies = white(8).repeat(1, 2, 1, 1)
    half_dead = white(16)
    half_dead[:, 8:] *= 1e-6
    for x in (copies, half_dead):
        assert capacity_at(band_moments(x), 0.01).bits_per_image == pytest.approx(6800, abs=15)
    assert capacity_at(band_moments(half_dead), 0.01).bits_per_channel[8:].sum().item() == pytest.approx(0, abs=1e-6)
    apart = sum(capacity_at(band_moments(copies[:, c : c + 1]), 0.01).bits_per_image for c in range(16))
    assert apart == pytest.approx(13561, abs=60)


@pytest.mark.parametrize("distortion", [0.3, 0.1, 0.01, 0.001])
def test_the_water_level_equals_a_root_found_by_scipy(rng, distortion):
    power = rng.random((5, 3)) ** 6 * 100
    cells = rng.integers(1, 40, 5)
    weight = cells[:, None] * np.ones(3)
    found = capacity_at(moments_of(torch.from_numpy(power)[:, :, None] * torch.eye(3), cells.tolist()), distortion)

    def excess(theta):
        return (weight * np.minimum(power, theta)).sum() - distortion * (weight * power).sum()

    theta = scipy.optimize.brentq(excess, 0, power.max(), xtol=1e-14)
    assert found.theta == pytest.approx(theta, rel=1e-9)
    bits = weight * np.maximum(0.5 * np.log2(power / theta), 0)
    np.testing.assert_allclose(found.bits_per_band.numpy(), bits.sum(1), rtol=1e-7)
    np.testing.assert_allclose(found.bits_per_channel.numpy(), bits.sum(0), rtol=1e-7)


def test_a_steep_spectrum_keeps_its_bits_in_the_low_bands():
    side = 16
    radius = torch.arange(side).square()[:, None] + torch.arange(side).square()
    x = idct2(white(2) / (1 + radius))
    moments = band_moments(x)
    per_cell = capacity_at(moments, 0.01).bits_per_band / moments.cells
    assert bool((per_cell.diff() <= 0).all())
    assert per_cell[0] > 5
    assert per_cell[-1] == 0


def test_mixing_channels_without_loss_moves_bits_but_keeps_their_number():
    x = white(4) * torch.tensor([1.0, 2, 4, 8])[:, None, None]
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    mixed = torch.einsum("dc,bchw->bdhw", rotation, x)
    once, again = (capacity_at(band_moments(y), 0.01) for y in (x, mixed))
    assert again.bits_per_image == pytest.approx(once.bits_per_image, rel=1e-5)
    assert_close(again.bits_per_band, once.bits_per_band, rtol=1e-4, atol=1e-3)


def test_the_capacity_over_a_posterior_is_that_of_gaussian_channels(rng):
    power, noise = rng.random((4, 3)) + 0.1, torch.tensor([0.5, 0.01, 2.0])
    cells = [3, 5, 8, 20]
    found = channel_capacity(moments_of(torch.from_numpy(power)[:, :, None] * torch.eye(3), cells), noise)
    bits = np.array(cells)[:, None] * 0.5 * np.log2(1 + power / noise.numpy())
    np.testing.assert_allclose(found.bits_per_band.numpy(), bits.sum(1), rtol=1e-7)
    np.testing.assert_allclose(found.bits_per_channel.numpy(), bits.sum(0), rtol=1e-7)
    assert found.theta is None


def test_with_correlated_channels_it_is_the_mutual_information(rng):
    """1/2 log2 det(I + N^-1 S), for any noise of the channels."""
    root = torch.from_numpy(rng.standard_normal((2, 3, 3)))
    covariance, noise = root @ root.mT, torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    found = channel_capacity(moments_of(covariance, [1, 7]), noise)
    expected = 0.5 * torch.linalg.slogdet(torch.eye(3, dtype=torch.float64) + covariance / noise[:, None])[1] / math.log(2)
    assert_close(found.bits_per_band, expected * torch.tensor([1.0, 7.0]), rtol=1e-9, atol=0)
    copies = channel_capacity(moments_of(torch.ones(1, 2, 2, dtype=torch.float64), [1]), torch.ones(2))
    assert copies.bits_per_image == pytest.approx(0.5 * math.log2(3), rel=1e-12)       # two observations of one signal


def test_bands_are_those_of_the_band_transfer_and_poorly_sampled_ones_are_marked():
    moments = band_moments(white(16, num_images=5))
    assert moments.cells.sum().item() == 256
    assert_close(moments.cells, torch.bincount(band_of_cell(16, 16, 8).flatten()).double())
    assert moments.well_sampled.tolist() == [(c * 4 >= 160) for c in moments.cells.tolist()]
    assert len(band_moments(white(2, side=4)).cells) == 4


@pytest.mark.parametrize("distortion", [0.0, 1.0, math.nan])
def test_a_distortion_that_is_no_fraction_is_refused(distortion):
    with pytest.raises(ValueError, match="a fraction of the variance between 0 and 1"):
        capacity_at(band_moments(white(2)), distortion)


def test_latents_without_a_capacity_are_refused():
    with pytest.raises(ValueError, match="at least 2 images"):
        capacity_at(band_moments(white(2, num_images=1)), 0.1)
    with pytest.raises(ValueError, match="nothing varies"):
        capacity_at(band_moments(torch.ones(3, 2, 8, 8)), 0.1)
    with pytest.raises(ValueError, match="cannot be joined"):
        band_moments(white(2)) + band_moments(white(2, side=8))
    for noise in (torch.zeros(2), torch.ones(3)):
        with pytest.raises(ValueError, match="a noise variance above 0 is needed for each of 2 channels"):
            channel_capacity(band_moments(white(2)), noise)
