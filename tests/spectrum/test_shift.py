"""Hand-made autoencoders with known errors, the controls in spectrum.md#health (f8, 128 px)."""

import math

import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from smtool.spectrum import LatentShift, ShiftErrors, dct2, idct2, latent_shift, shift_errors
from smtool.spectrum.shift import fractionally_shifted, shift_of, shifted

FACTOR = 8


def photographs(num_images: int = 8, side: int = 128) -> torch.Tensor:
    """Fields whose amplitude falls as f^-1.1, about as steep as photographs."""
    radius = (torch.arange(side).square()[:, None] + torch.arange(side).square()).sqrt().clamp(min=1)
    return idct2(torch.randn(num_images, 3, side, side, generator=torch.Generator().manual_seed(0)) * radius**-1.1)


def pool(x):
    return F.avg_pool2d(x, FACTOR)


def subsample(x):
    return x[..., ::FACTOR, ::FACTOR]


def crop(x):
    side = x.shape[-1] // FACTOR
    return idct2(dct2(x)[..., :side, :side] / FACTOR)


def uncrop(z):
    pad = (FACTOR - 1) * z.shape[-1]
    return idct2(F.pad(dct2(z) * FACTOR, (0, pad, 0, pad)))


def upsample(mode):
    return lambda z: F.interpolate(z, scale_factor=FACTOR, mode=mode)


AUTOENCODERS = {
    "crop": (crop, uncrop),
    "bilinear": (pool, upsample("bilinear")),
    "nearest": (pool, upsample("nearest")),
    "strided": (subsample, upsample("nearest")),
    "space to depth": (lambda x: F.pixel_unshuffle(x, FACTOR), lambda z: F.pixel_shuffle(z, FACTOR)),
    "stretch": (lambda x: idct2(F.pixel_unshuffle(dct2(x), FACTOR)), lambda z: idct2(F.pixel_shuffle(dct2(z), FACTOR))),
}


@pytest.fixture(scope="module")
def errors() -> dict[str, ShiftErrors]:
    return {name: shift_errors(*both, photographs(), downsample=FACTOR) for name, both in AUTOENCODERS.items()}


@pytest.mark.parametrize("name", ["space to depth", "stretch"])
def test_lossless_autoencoders_reconstruct_wherever_the_image_lies(errors, name):
    assert errors[name].reconstruction == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["bilinear", "nearest", "strided", "space to depth"])
def test_local_decoders_move_with_whole_cells(errors, name):
    assert errors[name].whole_cell == pytest.approx(0, abs=1e-9)


def test_the_ideal_low_pass_is_nearly_perfect_by_all_three(errors):
    """spectrum.md#health: .003, .000, .008. They are not 0 because the mirrored image is not band-limited at the border."""
    assert errors["crop"].reconstruction < 0.01
    assert errors["crop"].whole_cell < 0.001
    assert errors["crop"].latent < 0.02


def test_each_error_alone_calls_a_bad_autoencoder_perfect(errors):
    """spectrum.md#health: strided .61 / 0 / .55, space-to-depth 0 / 0 / .55, stretch 0 / 1.17 / 1.14."""
    assert errors["strided"].reconstruction > 0.3
    assert errors["space to depth"].latent > 0.3
    assert errors["stretch"].whole_cell > 0.6
    assert errors["stretch"].latent > 0.9


def test_smoother_upsampling_is_more_equivariant(errors):
    """First error in spectrum.md#health: .003, .016, .14, .61."""
    order = [errors[name].reconstruction for name in ("crop", "bilinear", "nearest", "strided")]
    assert order == sorted(order)
    assert order[2] > 5 * order[1]


def mirrored(x):
    """Mirror images to twice their sides, so that a circular shift fills every border with the mirrored image."""
    x = torch.cat([x, x.flip(-1)], -1)
    return torch.cat([x, x.flip(-2)], -2)


@pytest.mark.parametrize("name", ["bilinear", "nearest", "strided", "space to depth"])
def test_mirroring_at_the_border_alone_reads_as_turning_fully_mirrored_images_does(errors, name):
    (encode, decode), x, k, margin = AUTOENCODERS[name], mirrored(photographs()), shift_of(FACTOR), 2 * FACTOR
    z, moved = encode(x), encode(x.roll((k, k), (-2, -1)))
    difference = (decode(moved).roll((-k, -k), (-2, -1)) - decode(z))[..., margin:-margin, margin:-margin]
    assert errors[name].reconstruction == pytest.approx((difference.square().mean() / x.var()).item(), rel=0.15, abs=1e-9)
    turns = torch.fft.fftfreq(z.shape[-1])
    turned = torch.fft.ifft2(torch.fft.fft2(z) * torch.exp(-2j * math.pi * (turns[:, None] + turns) * k / FACTOR)).real
    latent = (moved - turned)[..., 2:-2, 2:-2].square().mean() / z.var((2, 3)).mean()
    assert errors[name].latent == pytest.approx(latent.item(), rel=0.15)


def test_unrelated_images_have_an_error_of_two():
    generator = torch.Generator().manual_seed(1)
    found = shift_errors(pool, lambda z: torch.randn(len(z), 3, 128, 128, generator=generator), photographs() * 0 + torch.randn(
        8, 3, 128, 128, generator=generator), downsample=FACTOR)
    assert found.reconstruction == pytest.approx(2, rel=0.02)
    assert found.whole_cell == pytest.approx(2, rel=0.02)


def test_the_latent_error_can_be_had_without_a_decoder(errors):
    for name, (encode, _) in AUTOENCODERS.items():
        assert latent_shift(encode, photographs(), downsample=FACTOR).value == pytest.approx(errors[name].latent, rel=1e-6)


def test_adding_batches_equals_all_at_once(errors):
    encode, decode = AUTOENCODERS["bilinear"]
    images = photographs()
    first, rest = (shift_errors(encode, decode, part, downsample=FACTOR) for part in (images[:3], images[3:]))
    small = shift_errors(encode, decode, images, downsample=FACTOR, batch=3)
    for found in (first + rest, small):
        assert found.reconstruction == pytest.approx(errors["bilinear"].reconstruction, rel=1e-5)
        assert found.latent == pytest.approx(errors["bilinear"].latent, rel=1e-5)


def test_gain_of_images_and_of_latents_does_not_matter(errors):
    encode, decode = AUTOENCODERS["nearest"]
    found = shift_errors(lambda x: 40 * encode(x), lambda z: decode(z / 40), 7 * photographs(), downsample=FACTOR)
    assert found.reconstruction == pytest.approx(errors["nearest"].reconstruction, rel=1e-4)
    assert found.latent == pytest.approx(errors["nearest"].latent, rel=1e-4)


def test_a_shift_by_whole_cells_brings_in_the_mirrored_picture():
    x = torch.arange(20.0).view(1, 1, 4, 5)
    found = shifted(x, 2)[0, 0]
    for i in range(4):
        for j in range(5):
            row, column = (c - 2 if c >= 2 else 1 - c for c in (i, j))
            assert found[i, j] == x[0, 0, row, column]


@pytest.mark.parametrize("side", [7, 16])
def test_a_fractional_shift_reads_the_cosines_between_the_cells(rng, side):
    x = rng.standard_normal((side, side))
    coefficients = scipy.fft.dctn(x)                                    # unnormalized
    k = torch.arange(side, dtype=torch.float64)
    place = torch.arange(side, dtype=torch.float64) + 0.5 - 0.375
    waves = torch.cos(math.pi / side * place[:, None] * k) / side
    waves[:, 0] /= 2
    expected = waves @ torch.from_numpy(coefficients) @ waves.T
    found = fractionally_shifted(torch.from_numpy(x)[None, None], 0.375)[0, 0]
    assert_close(found, expected, rtol=0, atol=1e-12)
    assert_close(fractionally_shifted(torch.from_numpy(x), 2), shifted(torch.from_numpy(x), 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("downsample", "distance"), [(2, 1), (4, 1), (8, 2), (14, 3), (16, 4), (32, 8)])
def test_the_shift_is_never_a_whole_number_of_cells(downsample, distance):
    assert shift_of(downsample) == distance


def test_latents_that_do_not_vary_have_no_error():
    assert math.isnan(latent_shift(lambda x: pool(x) * 0, photographs(), downsample=FACTOR).value)
    assert math.isnan(LatentShift(0.0, 0.0).value)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="4x4 cells leave nothing inside a margin of 2: at least 5 a side are needed"):
        latent_shift(pool, photographs(2, side=32), downsample=FACTOR)
    with pytest.raises(ValueError, match="returned 64x64 images, but the encoded images are 128x128"):
        shift_errors(pool, lambda z: F.interpolate(z, scale_factor=4), photographs(2), downsample=FACTOR)
    with pytest.raises(ValueError, match="do not vary"):
        shift_errors(pool, upsample("nearest"), torch.ones(2, 3, 128, 128), downsample=FACTOR)
    with pytest.raises(ValueError, match="cells of 2 pixels or more"):
        latent_shift(lambda x: x, photographs(2), downsample=1)
