"""Hand-made decoders with a known response, the controls in spectrum.md#band-transfer (f8, 16 x 16 latents, 128 px)."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from smtool.spectrum import BandTransfer, band_transfer, dct2, idct2

SIDE, FACTOR = 16, 8


def latents_of(channels: int, *, side: int = SIDE, num_images: int = 4) -> Tensor:
    """Latents whose amplitude falls as 1 / f."""
    axis = torch.arange(side)
    radius = (axis.square()[:, None] + axis.square()).sqrt()
    radius[0, 0] = 1
    return idct2(torch.randn(num_images, channels, side, side, generator=torch.Generator().manual_seed(0)) / radius)


def crop(z: Tensor) -> Tensor:
    """The low DCT cells of the image are the latent's: identity in cycles per image."""
    pad = (FACTOR - 1) * z.shape[-1]
    return idct2(F.pad(dct2(z) * FACTOR, (0, pad, 0, pad)))


def stretch(z: Tensor) -> Tensor:
    """Image cell (f u + a, f v + b) is channel (a, b) of latent cell (u, v): identity in fractions of Nyquist, lossless."""
    return idct2(F.pixel_shuffle(dct2(z), FACTOR))


def reversed_cells(z: Tensor) -> Tensor:
    return idct2(dct2(z).flip(-2, -1))


def measure(decode, channels: int = 3, **options) -> BandTransfer:
    return band_transfer(decode, latents_of(channels), generator=torch.Generator().manual_seed(1), **options)


def test_crop_is_exact_in_the_absolute_reading():
    found = measure(crop)
    assert_close(found.absolute, torch.eye(8, 9, dtype=torch.float64), rtol=0, atol=1e-6)
    assert found.kappa == pytest.approx(1, abs=1e-6)
    assert (found.above, found.down) == pytest.approx((0, 0), abs=1e-6)
    assert found.relative_fraction == pytest.approx(0.125, abs=1e-6)
    assert found.relative_kappa == pytest.approx(0, abs=1e-6)
    assert_close(found.row_gain, torch.ones(8, dtype=torch.float64), rtol=1e-4, atol=0)
    assert found.is_linear


def test_stretch_is_exact_in_the_relative_reading():
    found = measure(stretch, 3 * FACTOR**2)
    assert_close(found.relative, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-6)
    assert found.relative_kappa == pytest.approx(1, abs=1e-6)
    assert found.fraction == pytest.approx(0, abs=1e-3)
    assert found.kappa == pytest.approx(-0.02, abs=0.01)
    assert found.above == pytest.approx(0.875, abs=0.001)


@pytest.mark.parametrize(("decode", "channels", "share", "kappa", "above", "relative_share", "relative_kappa"), [
    (lambda z: crop(reversed_cells(z)), 3, 0.092, -0.04, 0.0, 0.125, 0.0),
    (lambda z: stretch(reversed_cells(z)), 192, 0.001, 0.0, 0.995, 0.090, -0.04),
    (lambda z: F.interpolate(z, scale_factor=8, mode="nearest"), 3, 0.78, 0.75, 0.22, 0.14, 0.02),
    (lambda z: F.interpolate(z, scale_factor=8, mode="bilinear"), 3, 0.94, 0.93, 0.06, 0.125, 0.0),
    (lambda z: F.interpolate(z, scale_factor=8, mode="bicubic"), 3, 0.97, 0.96, 0.03, 0.125, 0.0),
    (lambda z: F.pixel_shuffle(z, FACTOR), 192, 0.014, 0.01, 0.984, 0.126, 0.0),
], ids=["crop scrambled", "stretch scrambled", "nearest", "bilinear", "bicubic", "space to depth"])
def test_other_decoders_have_the_documented_scores(decode, channels, share, kappa, above, relative_share, relative_kappa):
    found = measure(decode, channels)
    assert (found.fraction, found.kappa, found.above) == pytest.approx((share, kappa, above), abs=0.012)
    assert (found.relative_fraction, found.relative_kappa) == pytest.approx((relative_share, relative_kappa), abs=0.012)


def test_a_random_dense_decoder_is_at_chance():
    weight = torch.randn(4 * SIDE**2, 3 * 64**2, generator=torch.Generator().manual_seed(2))
    found = measure(lambda z: (z.flatten(1) @ weight).view(-1, 3, 64, 64), 4)
    assert found.kappa == pytest.approx(0, abs=0.01)
    assert found.above == pytest.approx(1 - 1 / 16, abs=0.01)      # the fraction of image cells above the latent's Nyquist


def test_bands_that_the_decoder_drops_are_left_out_and_reported():
    cut = torch.zeros(SIDE, SIDE)
    radius = (torch.arange(SIDE).square()[:, None] + torch.arange(SIDE).square()).sqrt()
    cut[radius < SIDE / 2] = 1
    found = measure(lambda z: crop(idct2(dct2(z) * cut)))
    assert found.answered.tolist() == [True] * 4 + [False] * 4
    assert (found.fraction, found.kappa) == pytest.approx((1, 1), abs=1e-6)
    assert (found.relative_fraction, found.relative_kappa) == pytest.approx((0.25, 0), abs=1e-6)
    assert not found.absolute[4:].any()


@pytest.mark.parametrize(("gain", "answered"), [(3e-3, True), (1e-6, False)])
def test_a_weak_response_counts_down_to_a_billionth_of_all_energy(gain, answered):
    faint = torch.ones(SIDE, SIDE)
    faint[(torch.arange(SIDE).square()[:, None] + torch.arange(SIDE).square()).sqrt() >= SIDE / 2] = gain
    found = band_transfer(lambda z: idct2(dct2(z) * faint), latents_of(3).double(), generator=torch.Generator().manual_seed(1))
    assert found.answered.tolist() == [True] * 4 + [answered] * 4


def test_a_band_that_holds_only_dc_is_not_answered():
    found = band_transfer(crop, latents_of(3, side=8), generator=torch.Generator().manual_seed(1))
    assert found.answered.tolist() == [False] + [True] * 7
    assert found.kappa == pytest.approx(1, abs=1e-6)
    assert found.row_gain[0] == 0


def test_small_latents_have_as_many_bands_as_cells():
    found = band_transfer(crop, latents_of(3, side=4), generator=torch.Generator().manual_seed(1))
    assert found.absolute.shape == (4, 5)
    assert found.relative.shape == (4, 4)


def test_a_bend_that_moves_frequencies_is_seen_and_a_hard_step_fails_the_self_check():
    cubed = measure(lambda z: crop(z**3))
    assert 0.05 < cubed.down < 0.5
    assert cubed.is_linear                                          # smooth: a tangent exists
    step = measure(lambda z: crop((z > 1.5 * z.std()).to(z.dtype)), eps=0.3)
    assert not step.is_linear


def test_the_matrices_do_not_depend_on_gain_batch_or_a_repeated_call():
    once, again = measure(reversed_cells), measure(reversed_cells, batch=3)
    assert_close(again.absolute_energy, once.absolute_energy, rtol=1e-4, atol=0)
    loud = band_transfer(lambda z: 5 * reversed_cells(z / 100), 100 * latents_of(3), generator=torch.Generator().manual_seed(1))
    assert_close(loud.absolute, once.absolute, rtol=0, atol=1e-4)
    assert_close(loud.row_gain, once.row_gain / 20**2, rtol=1e-3, atol=0)


def test_a_band_is_perturbed_by_its_own_rms_and_the_mean_does_not_count():
    latents = latents_of(8, num_images=128)
    found = band_transfer(lambda z: z, latents, generator=torch.Generator().manual_seed(1))
    u, v = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    power = dct2(latents - latents.mean((2, 3), keepdim=True)).square().sum(1).mean(0)
    for band in range(8):
        inside = (u**2 + v**2 >= (2 * band) ** 2) & ((u**2 + v**2 < (2 * band + 2) ** 2) | (band == 7))
        expected = power[inside].sum().item()
        assert found.own_energy[band].item() == pytest.approx(expected, rel=0.08)           # at least 3072 random numbers
    shifted = band_transfer(lambda z: z, latents + 100, generator=torch.Generator().manual_seed(1))
    assert_close(shifted.own_energy, found.own_energy, rtol=1e-3, atol=0)


def test_one_answered_band_has_no_kappa():
    one_cell = torch.arange(SIDE**2).view(SIDE, SIDE) == 1
    found = measure(lambda z: crop(idct2(dct2(z) * one_cell)))
    assert int(found.answered.sum()) == 1
    assert math.isnan(found.kappa)


def test_autocast_does_not_reach_the_decoder():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = measure(lambda z: F.conv2d(crop(z), torch.eye(3)[:, :, None, None]))
    assert found.kappa == pytest.approx(1, abs=1e-6)


def test_decoders_and_latents_that_cannot_be_measured_are_refused():
    with pytest.raises(ValueError, match="the same images for all perturbed latents"):
        measure(lambda z: torch.zeros(len(z), 3, 64, 64))
    with pytest.raises(ValueError, match="returned 8x8 images for 16x16 latents"):
        measure(lambda z: F.avg_pool2d(z, 2))
    with pytest.raises(ValueError, match=r"needs latents \(N, C, h, w\)"):
        band_transfer(crop, torch.zeros(3, 8, 8), generator=torch.Generator())
