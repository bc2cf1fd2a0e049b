"""delta of fields with a known delta, from 200 fixed sets of 16 pairs each; the divergence in dB; the REFERENCE delta."""

import math
from dataclasses import replace

import pytest
import torch

from smtool.spectrum import (
    PHYSICAL,
    REFERENCE,
    Spectrum,
    dct2,
    fit_delta,
    fit_delta_spectra,
    fit_reference_delta,
    idct2,
    physical_divergence_db,
    ring_frequency,
    spectrum_of,
)
from smtool.spectrum.calibration import expected_power
from smtool.spectrum.psd import ring_means

NUM_SETS, NUM_IMAGES = 200, 16
CELLS = tuple((exponent, delta) for exponent in (1.0, 2.0, 3.0) for delta in (0.0, 0.5, 1.0, 1.5) if exponent >= delta)


@pytest.fixture(scope="module")
def photographs(known_pairs) -> torch.Tensor:
    """Substitutes for photographs: 24 fields of exponent 2, (24, 3, 64, 64)."""
    images, _ = known_pairs(160, ((2.0, 0.0),), side=32, canvas=64)[2.0, 0.0]
    return images[:24].double()


def ideal_latents(images: torch.Tensor, side: int, *, delta: float = 0.0) -> torch.Tensor:
    """The low DCT cells of images, each cell's power multiplied by f^delta."""
    axis = torch.arange(side) / (2 * side)
    frequency = (axis.square()[:, None] + axis.square()).double().sqrt()
    frequency[0, 0] = 1
    return idct2(dct2(images)[..., :side, :side] * (side / images.shape[-1]) * frequency ** (delta / 2))


def table(power: torch.Tensor, side: int, *, source: int) -> Spectrum:
    """A PHYSICAL spectrum of ring powers (N, bins), of side x side cells from images with `source` pixels a side."""
    frequency, count = ring_frequency(side, side, PHYSICAL)
    return Spectrum(frequency, power, count, PHYSICAL, (side, side), (source, source))


def recoloured(images: Spectrum, *, delta: float = 0.0, gain: float = 1.0) -> Spectrum:
    """Latents whose REFERENCE bins are the image's bins times (bin number)^delta and a power gain."""
    return replace(images, power=images.power * images.frequency**delta * gain, source=images.size)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "canvas", "cells"), [(8, 64, CELLS), (16, 64, CELLS)])
def test_delta_of_known_fields_lies_inside_the_interval(known_pairs, side, canvas, cells):
    for (exponent, delta), (images, latents) in known_pairs(NUM_SETS * NUM_IMAGES, cells, side=side, canvas=canvas).items():
        fits = [fit_delta(x, z) for x, z in zip(images.split(NUM_IMAGES), latents.split(NUM_IMAGES), strict=True)]
        inside = sum(low <= delta <= high for low, high in (fit.interval for fit in fits))
        bias = sum(fit.delta for fit in fits) / NUM_SETS - delta
        assert inside >= 180, (exponent, delta, inside)
        assert abs(bias) <= 0.02, (exponent, delta, bias)
        assert all(fit.is_power_law for fit in fits)


@pytest.mark.parametrize("side", [8, 16, 32])
def test_the_low_dct_cells_are_latents_of_delta_zero(photographs, side):
    fit = fit_delta(photographs, ideal_latents(photographs, side))
    assert fit.delta == pytest.approx(0, abs=3e-3)
    assert fit.half_width_jackknife < 3e-3
    assert fit.residual_db == pytest.approx(0, abs=1e-9)
    assert fit.allowance == {8: 0.04, 16: 0.02, 32: 0.01}[side]
    assert fit.fit_range == (0.9 / side, 0.5)
    assert fit.interval == pytest.approx((fit.delta - fit.half_width, fit.delta + fit.half_width))
    assert fit.image_exponent == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("side", "source"), [(8, 16), (8, 128), (16, 64)])
@pytest.mark.parametrize(("exponent", "delta"), [(3.0, 1.0), (2.0, 0.0), (1.0, 1.5)])
def test_each_side_is_read_through_its_own_calibration(side, source, exponent, delta):
    """With the expected ring powers of both sides: leakage in the low cells of a large DCT differs from that of a small DCT."""
    images = ring_means(expected_power(exponent, (side, side), (source, source))[None], PHYSICAL)
    latents = ring_means(expected_power(exponent - delta, (side, side), (side, side))[None], PHYSICAL)
    fit = fit_delta_spectra(table(images, side, source=source), table(latents, side, source=side))
    assert fit.delta == pytest.approx(delta, abs=2e-3)
    assert (fit.image_exponent, fit.latent_exponent) == pytest.approx((exponent, exponent - delta), abs=2e-3)


@pytest.mark.parametrize("delta", [-0.5, 0.5, 1.0])
def test_coloured_latents_are_read_whatever_their_gain(photographs, delta):
    latents = ideal_latents(photographs, 16, delta=delta)
    quiet, loud = fit_delta(photographs, 0.01 * latents), fit_delta(photographs, 20 * latents)
    assert quiet.delta == pytest.approx(loud.delta, abs=1e-9)
    assert loud.delta == pytest.approx(delta, abs=0.05)     # leakage was multiplied by f^delta too


def test_tables_that_were_streamed_give_the_same_as_tensors(photographs):
    noise = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = ideal_latents(photographs, 16, delta=0.7) + 0.1 * noise
    images = [spectrum_of(x, PHYSICAL, (16, 16)) for x in photographs.split(10)]
    encoded = [spectrum_of(z, PHYSICAL) for z in latents.split(10)]
    streamed = fit_delta_spectra(images[0] + images[1] + images[2], encoded[0] + encoded[1] + encoded[2])
    at_once = fit_delta(photographs, latents)
    assert (streamed.delta, *streamed.interval) == pytest.approx((at_once.delta, *at_once.interval), abs=1e-9)
    assert streamed.residual_db == pytest.approx(at_once.residual_db, abs=1e-9)


def test_the_interval_depends_on_the_pairing_of_images_and_latents(photographs):
    """Shuffled pairs have the same delta, but a longer interval, because images and latents no longer vary together."""
    noise = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    latents = ideal_latents(photographs, 16) + 0.02 * noise
    paired, shuffled = fit_delta(photographs, latents), fit_delta(photographs, latents.roll(1, 0))
    assert shuffled.delta == pytest.approx(paired.delta, abs=1e-9)
    assert paired.half_width_jackknife < 0.5 * shuffled.half_width_jackknife


@pytest.mark.parametrize(("side", "highest"), [(64, 0.35), (56, 0.4), (32, 0.5)])
def test_latents_hardly_smaller_than_the_image_end_at_035_cycles_per_image_pixel(photographs, side, highest):
    assert fit_delta(photographs, ideal_latents(photographs, side)).fit_range[1] == pytest.approx(highest)


def test_a_single_pair_has_no_interval(photographs):
    assert fit_delta(photographs[:1], ideal_latents(photographs[:1], 16)).half_width == math.inf


def test_a_spectrum_with_a_hole_is_not_a_power_law(photographs):
    latents = dct2(ideal_latents(photographs, 16))
    latents[..., 6:8, :] *= 0.1
    latents[..., :, 6:8] *= 0.1
    fit = fit_delta(photographs, idct2(latents))
    assert fit.residual_db > 3
    assert not fit.is_power_law


def test_the_divergence_is_blind_to_gain_and_symmetric(photographs):
    images, latents = spectrum_of(photographs, PHYSICAL, (16, 16)), spectrum_of(ideal_latents(photographs, 16), PHYSICAL)
    matched = table(images.mean()[None] * images.frequency * 30, 16, source=16)
    assert physical_divergence_db(images, latents, delta=0.0) == pytest.approx(0, abs=1e-9)
    assert physical_divergence_db(table(images.mean()[None], 16, source=64), matched, delta=1.0) == pytest.approx(0, abs=1e-9)


def test_the_divergence_of_known_errors_has_the_documented_values():
    """A slope that differs by .5: 1.2 dB; 4 or 1/4 times the power in the top half octave: 2.8 dB (spectrum.md#delta)."""
    images = table(torch.ones(1, 13 + 1), 16, source=64)
    for slope in (-0.5, 0.5):
        tilted = table(images.frequency[None] ** slope, 16, source=16)
        assert physical_divergence_db(images, tilted, delta=0.0) == pytest.approx(1.2, abs=0.06)
    for gain in (4, 0.25):
        top = torch.where(images.frequency > 0.5 / math.sqrt(2), gain, 1.0)
        assert physical_divergence_db(images, table(top[None], 16, source=16), delta=0.0) == pytest.approx(2.8, abs=0.06)


@pytest.mark.parametrize("std", [0.1, 0.3, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("delta", [0.0, 0.52, 1.0])
def test_matched_reference_delta_recovers_its_own_colouring_at_every_gain(photographs, delta, std):
    images = spectrum_of(photographs, REFERENCE.loss, (32, 32))
    fit = fit_reference_delta(images, recoloured(images, delta=delta, gain=std**2), gain="match")
    assert fit.value == pytest.approx(delta, abs=2e-3)
    assert fit.divergence == pytest.approx(0, abs=1e-5)


def test_raw_reference_delta_measures_loudness_too(photographs):
    images = spectrum_of(photographs / photographs.std(), REFERENCE.loss, (32, 32))
    quiet, same, loud = (fit_reference_delta(images, recoloured(images, gain=gain), gain="raw").value for gain in (0.1, 1, 10))
    assert same == pytest.approx(0, abs=2e-3)
    assert quiet is not None and loud is not None
    assert quiet < -0.2 and loud > 0.2


def test_no_minimum_inside_the_range_is_an_answer(photographs):
    images = spectrum_of(photographs, REFERENCE.loss, (32, 32))
    fit = fit_reference_delta(images, recoloured(images, delta=5), gain="match")
    assert fit.value is None
    assert fit.message == "no minimum inside [-1, 3]"


def test_sides_that_do_not_belong_together_are_refused(photographs):
    latents = ideal_latents(photographs, 16)
    with pytest.raises(ValueError, match="pass size to spectrum_of"):
        fit_delta_spectra(spectrum_of(photographs, PHYSICAL), spectrum_of(latents, PHYSICAL))
    with pytest.raises(ValueError, match="24 images cannot be paired with 5 latents"):
        fit_delta(photographs, latents[:5])
    with pytest.raises(ValueError, match="4x4 cells are too few"):
        fit_delta(photographs, latents[..., :4, :4])
    with pytest.raises(ValueError, match="both sides need one REFERENCE recipe"):
        fit_reference_delta(spectrum_of(photographs, PHYSICAL, (16, 16)), spectrum_of(latents, PHYSICAL), gain="raw")
