import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from smtool.diffusability.inputs.accumulators import ImageRings, LatentRings
from smtool.diffusability.inputs.subjects import Subject
from smtool.diffusability.sections import physical, reference
from smtool.diffusability.sections.physical import image_powers, latent_powers, target
from smtool.networks.posterior import LatentStats, Posterior
from smtool.spectrum import PHYSICAL, REFERENCE, RadialPower, dct2, esm_loss, idct2, recolouring, spectrum_of
from smtool.spectrum.units import Units


def fields(count: int, side: int, exponent: float) -> torch.Tensor:
    """Fields of power f^-exponent, cut from larger canvases."""
    big = 4 * side
    frequency = np.hypot(np.fft.fftfreq(big)[:, None], np.fft.fftfreq(big)[None])
    frequency[0, 0] = np.inf
    noise = np.random.default_rng(0).standard_normal((count, 3, big, big))
    canvas = np.fft.ifft2(np.fft.fft2(noise) * frequency ** (-exponent / 2)).real
    return torch.from_numpy(canvas[..., :side, :side]).float()


def coloured(images: torch.Tensor, side: int, delta: float) -> torch.Tensor:
    """The ideal downsample, times f^(delta / 2)."""
    cells = dct2(images)[..., :side, :side] * side / images.shape[-1]
    u = torch.arange(side)
    radius = (u[:, None] ** 2 + u**2).sqrt().clamp(min=1)
    return idct2(cells * radius ** (delta / 2))


class Ideal:
    """An autoencoder whose latents are the images' ideal downsample, coloured."""

    stats = None
    latent_channels = 3
    deterministic = False

    def __init__(self, side: int, delta: float) -> None:
        self.side, self.delta = side, delta

    def encode(self, images):
        latents = coloured(images, self.side, self.delta)
        return Posterior(latents, torch.full_like(latents, -30.0))

    def decode(self, latents):
        return torch.nn.functional.interpolate(latents, scale_factor=4)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return fields(24, 64, 2.0)


def every_image(images) -> Units:
    return Units("image", [str(i) for i in range(len(images))])


def measured(images, delta, *, deterministic=False):
    estimators = [PHYSICAL, REFERENCE.loss, REFERENCE.curve]
    rings = ImageRings(estimators, [(16, 16)])
    codec = Ideal(16, delta)
    codec.deterministic = deterministic
    latents = LatentRings(Subject("ideal", codec), estimators, keep=0)
    for first in range(0, len(images), 8):
        rings.add(images[first:first + 8])
        latents.add(images[first:first + 8], first)
    return rings, latents


def test_a_recolouring_shows_in_normalized_readings_only(images):
    """The readings of a transformer's spectral statistics equal those of latents that are filtered first."""
    latents = coloured(images, 16, 0.5)
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3), unbiased=False)
    filtered = recolouring(RadialPower.of(latents, images), mean, std, 1.5)
    plain, spectral = Ideal(16, 0.5), Ideal(16, 0.5)
    spectral.stats = LatentStats("spectral", mean, std, 24, "", torch.zeros(3), filtered)
    found = {}
    for codec in (plain, spectral):
        rings, tables = ImageRings([PHYSICAL], [(16, 16)]), LatentRings(Subject("ideal", codec), [PHYSICAL], keep=0)
        rings.add(images)
        tables.add(images, 0)
        entries = physical.measure(rings, tables, tables.stats("").std, (16, 16), every_image(images), delta=1.0)
        found[codec] = {(entry.posterior, entry.latents): entry for entry in entries}
    head = found[spectral]["sample", "normalized"]
    assert head.delta.value == pytest.approx(1.5, abs=0.05)
    assert found[spectral]["sample", "raw"].power == found[plain]["sample", "raw"].power
    expected = spectrum_of(spectral.stats.normalize(latents.double()), PHYSICAL).mean()
    np.testing.assert_allclose(head.power, expected, rtol=1e-5)
    first = spectrum_of(spectral.stats.normalize(latents.double())[:, :1], PHYSICAL).mean()
    np.testing.assert_allclose(head.channels.power[0], first, rtol=1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_the_delta_of_coloured_ideal_downsamples_is_found(images, delta):
    rings, latents = measured(images, delta)
    entries = physical.measure(rings, latents, latents.stats("").std, (16, 16), every_image(images), delta=1.0)
    assert [(entry.posterior, entry.latents) for entry in entries if entry.headline] == [("sample", "normalized")]
    for entry in entries:
        assert entry.delta.value == pytest.approx(delta, abs=0.03)
        assert entry.slope.exponent == pytest.approx(2.0 - delta, abs=0.15)
        assert entry.target.divergence_db.value == pytest.approx(2.4 * abs(delta - 1.0), abs=0.5)
    json.dumps([entry.model_dump(mode="json") for entry in entries], allow_nan=False)


def test_the_residual_to_the_fitted_target_is_not_due_to_the_slope(images):
    rings, latents = measured(images, 0.5)
    head = physical.measure(rings, latents, latents.stats("").std, (16, 16), every_image(images), delta=1.0)[0]
    assert head.fitted_target.delta == head.delta.value
    assert head.target.delta == 1.0
    assert head.fitted_target.divergence_db.value < 0.5 < head.target.divergence_db.value


def test_normalized_channels_average_to_the_headline(images):
    rings, latents = measured(images * torch.tensor([1.0, 5.0, 0.2]).view(1, 3, 1, 1), 0.0)
    head = physical.measure(rings, latents, latents.stats("").std, (16, 16), every_image(images), delta=1.0)[0]
    channels = np.array(head.channels.power)
    assert channels.shape == (3, len(head.power))
    np.testing.assert_allclose(channels.mean(0), head.power, rtol=1e-5)
    assert channels.sum(1).max() < 2 * channels.sum(1).min()      # unlike the raw ones, which differ by (5 / 0.2)^2


def test_a_deterministic_encoder_has_one_reading_at_each_scale(images):
    rings, latents = measured(images, 1.0, deterministic=True)
    common = (rings, latents, latents.stats("").std, (16, 16), every_image(images))
    labels = [("deterministic", "normalized"), ("deterministic", "raw")]
    spectra, shares = physical.measure(*common, delta=1.0), reference.measure(*common, delta=1.0)
    assert [(entry.posterior, entry.latents) for entry in spectra] == labels
    assert [(entry.posterior, entry.latents) for entry in shares] == labels[::-1]
    assert [entry.headline for entry in (*spectra, *shares)] == [True, False] * 2
    assert spectra[0].delta.value == pytest.approx(1.0, abs=0.03)


def test_channels_and_knees_need_64_images(images):
    rings, latents = measured(images, 0.0)
    std = latents.stats("").std
    few = physical.measure(rings, latents, std, (16, 16), every_image(images), delta=1.0)[0]
    assert "64 images" in few.knee.reason
    assert "64 images" in few.channel_deltas.reason
    rings, latents = measured(fields(64, 64, 2.0), 0.0)
    many = physical.measure(rings, latents, std, (16, 16), Units("image", [str(i) for i in range(64)]), delta=1.0)[0]
    assert not many.knee.is_bent
    np.testing.assert_allclose(many.channel_deltas.values, np.zeros(3), atol=0.1)      # a channel against the mean of three


def test_the_band_of_the_residual_is_a_paired_jackknife_and_the_lowest_ring_does_not_change_the_gain(images):
    noise = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    at_size, latents = spectrum_of(images, PHYSICAL, (16, 16)), spectrum_of(coloured(images, 16, 1.0) + 0.1 * noise, PHYSICAL)
    frequency, counted = at_size.frequency.numpy() * 16, at_size.frequency.numpy() >= 0.9 / 16
    weight = np.sqrt(at_size.count.numpy()) * counted

    def residual(kept):
        ratio = 10 * np.log10(latents.power.numpy()[kept].mean(0) / at_size.power.numpy()[kept].mean(0) / frequency)
        return ratio - (weight * ratio).sum() / weight.sum()

    found, everything = target(at_size, latents, delta=1.0), np.arange(24)
    np.testing.assert_allclose(found.residual_db, residual(everything), rtol=1e-4, atol=1e-5)
    without = np.stack([residual(everything != i) for i in everything])
    error = np.sqrt(23 / 24 * ((without - without.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(found.half_width, scipy.stats.t.ppf(0.975, 23) * error, rtol=1e-4)
    assert not counted[0]
    louder = latents.power.clone()
    louder[:, 0] *= 100
    assert target(at_size, replace(latents, power=louder), delta=1.0).gain_db == pytest.approx(found.gain_db, abs=1e-9)


def test_latents_on_the_target_lie_on_it_in_the_figures_units(images):
    at_size = spectrum_of(images, PHYSICAL, (16, 16))
    latents = spectrum_of(coloured(images, 16, 1.0) * 7, PHYSICAL)
    found = target(at_size, latents, delta=1.0)
    drawn = latents.mean().numpy() * 10 ** (found.gain_db / 10)
    np.testing.assert_allclose(10 * np.log10(drawn / np.array(found.power)), found.residual_db, atol=1e-4)
    assert max(map(abs, found.residual_db[1:])) < 0.6
    own = spectrum_of(images, PHYSICAL)      # at 1 cycle per side, where f^delta is 1, target and images meet
    at_one = np.interp(0.0, np.log(at_size.frequency.numpy() * 16), np.log(found.power))
    assert at_one == pytest.approx(np.interp(0.0, np.log(own.frequency.numpy() * 64), np.log(own.mean().numpy())), abs=0.15)


def test_the_reference_divergence_is_the_esm_loss(images):
    rings, latents = measured(images, 0.5)
    entries = reference.measure(rings, latents, latents.stats("").std, (16, 16), every_image(images), delta=1.0)
    head = entries[0]
    assert head.headline
    assert (head.posterior, head.latents) == ("sample", "raw")
    expected = esm_loss(images, coloured(images, 16, 0.5), 1.0).item()
    assert head.divergence.raw.value == pytest.approx(expected, rel=1e-3)
    json.dumps([entry.model_dump(mode="json") for entry in entries], allow_nan=False)


def test_reference_curves_sum_to_one(images):
    rings = ImageRings([REFERENCE.curve], [(8, 8)])
    rings.add(images)
    entry = reference.measure_images(rings, (8, 8), every_image(images), delta=1.0)
    assert sum(entry.curve.share) == pytest.approx(1.0, abs=1e-4)
    assert sum(entry.target.share) == pytest.approx(1.0, abs=1e-4)
    assert entry.target.share[-1] > entry.curve.share[-1]


def test_units_average_the_crops_of_a_photograph():
    units = Units("photograph", ["a", "b", "a", "c", "a"])
    table = torch.tensor([[1.0], [10.0], [2.0], [100.0], [6.0]], dtype=torch.float64)
    assert units.collapse(table).tolist() == [[3.0], [10.0], [100.0]]
    assert len(units) == 3
    assert len(units.first(2)) == 2


def test_more_crops_of_the_same_photographs_do_not_narrow_an_interval(images):
    names = [f"photograph {i}" for i in range(8)]
    once = image_powers(spectrum_of(images[:8], PHYSICAL))
    thrice = spectrum_of(images[:8].repeat(3, 1, 1, 1), PHYSICAL)
    grouped = image_powers(replace(thrice, power=Units("photograph", names * 3).collapse(thrice.power)))
    assert grouped.slope.half_width == pytest.approx(once.slope.half_width, rel=1e-6)
    assert image_powers(thrice).slope.half_width < 0.7 * once.slope.half_width


def test_bands_are_students_intervals_of_the_mean(images):
    spectrum = spectrum_of(images, PHYSICAL)
    reading = image_powers(spectrum)
    half = scipy.stats.t.ppf(0.975, len(images) - 1) * scipy.stats.sem(spectrum.power.numpy(), axis=0)
    mean = spectrum.power.numpy().mean(0)
    np.testing.assert_allclose(reading.high, mean * np.exp(half / mean), rtol=1e-5)
    np.testing.assert_allclose(reading.low, mean * np.exp(-half / mean), rtol=1e-5)


def test_a_latent_too_small_for_a_fit_has_its_powers_and_the_reason(images):
    reading = latent_powers(spectrum_of(images, PHYSICAL, (4, 4)), spectrum_of(coloured(images, 4, 0.0), PHYSICAL), delta=1.0)
    assert len(reading.power) >= 2
    for part in (reading.slope, reading.delta):
        assert "8x8 is the smallest" in part.reason


def test_one_image_has_numbers_but_no_interval(images):
    one = images[:1]
    reading = latent_powers(spectrum_of(one, PHYSICAL, (16, 16)), spectrum_of(coloured(one, 16, 1.0), PHYSICAL), delta=1.0)
    assert reading.slope.half_width is None
    assert reading.delta.half_width is None
    assert set(reading.low) == set(reading.high) == {None}
    json.dumps(reading.model_dump(mode="json"), allow_nan=False)
