"""Fits to fields with a known break, cropped from larger periodic fields."""

import math

import pytest
import torch

from smtool.spectrum import PHYSICAL, Spectrum, fit_broken_power_law, spectrum_of
from smtool.spectrum.calibration import leaked_power
from smtool.spectrum.psd import ring_frequency, ring_means


def broken_density(below: float, above: float, at: float):
    def density(squared: torch.Tensor) -> torch.Tensor:
        x = 0.5 * squared.log() - math.log(at)
        return torch.exp(-below * x - (above - below) * x.clamp(min=0))
    return density


def broken_fields(below: float, above: float, at: float, *, side: int, count: int, seed: int) -> torch.Tensor:
    """(count, 4, side, side): corners of periodic fields four times as wide; `at` is the break in cycles per pixel."""
    canvas = 4 * side
    squared = torch.fft.fftfreq(canvas).square()[:, None] + torch.fft.rfftfreq(canvas).square()
    squared[0, 0] = 1
    amplitude = broken_density(below, above, at)(squared).sqrt()
    amplitude[0, 0] = 0
    noise = torch.randn(count, 4, canvas, canvas, generator=torch.Generator().manual_seed(seed))
    return torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(canvas, canvas))[..., :side, :side]


def fitted(below: float, above: float, at: float, *, side: int = 16, seed: int = 0):
    fields = broken_fields(below, above, at, side=side, count=64, seed=seed)
    return fit_broken_power_law(spectrum_of(fields, PHYSICAL), highest=0.5)


@pytest.mark.parametrize(("side", "source"), [(16, 16), (32, 32), (64, 64), (16, 64)])
@pytest.mark.parametrize(("below", "above"), [(1.0, 3.0), (3.0, 1.0), (0.0, 1.5)])
def test_the_expected_spectrum_of_a_broken_law_gives_its_parameters(below, above, side, source):
    """Also for images measured at a latent's size, where the break is in cycles per latent pixel."""
    density = broken_density(below, above, 0.17 * side / source)
    power = ring_means(leaked_power(density, (side, side), (source, source))[None], PHYSICAL)
    frequency, count = ring_frequency(side, side, PHYSICAL)
    spectrum = Spectrum(frequency, power.repeat(64, 1), count, PHYSICAL, (side, side), (source, source))
    found = fit_broken_power_law(spectrum, highest=0.5)
    assert found.frequency == pytest.approx(0.17, rel=1e-4)
    assert (found.exponent_below, found.exponent_above) == pytest.approx((below, above), abs=1e-3)
    assert found.is_bent


def test_intervals_at_sixteen_cells_have_about_their_nominal_coverage():
    """48 intervals of 95 %: 46 are expected to contain the truth. At a coverage of .93, 40 or more have probability .999."""
    place = change = 0
    for seed in range(24):
        for below, above, at in ((1.0, 3.0, 0.15), (2.0, 0.5, 0.2)):
            found = fitted(below, above, at, seed=seed)
            place += found.interval[0] <= at <= found.interval[1]
            change += abs(found.slope_change - (above - below)) <= found.slope_change_half_width
            assert found.is_bent
    assert place >= 40
    assert change >= 40


@pytest.mark.parametrize("exponent", [0.0, 2.0])
def test_a_single_slope_is_not_called_bent(exponent):
    assert sum(fitted(exponent, exponent, 0.2, seed=seed).is_bent for seed in range(10)) <= 1


def test_the_break_does_not_depend_on_gain():
    fields = broken_fields(1.0, 3.0, 0.15, side=16, count=64, seed=3)
    once, again = (fit_broken_power_law(spectrum_of(gain * fields, PHYSICAL), highest=0.5) for gain in (1, 100))
    assert again.frequency == pytest.approx(once.frequency, rel=1e-4)
    assert again.interval == pytest.approx(once.interval, rel=1e-3)


def test_spectra_too_small_for_a_broken_power_law_are_refused():
    fields = broken_fields(1.0, 3.0, 0.15, side=16, count=64, seed=0)
    with pytest.raises(ValueError, match="needs 16x16 cells and 64 images, but there are 16x16 cells and 63 images"):
        fit_broken_power_law(spectrum_of(fields[:63], PHYSICAL), highest=0.5)
    with pytest.raises(ValueError, match="8x8 cells and 64 images"):
        fit_broken_power_law(spectrum_of(fields[..., :8, :8], PHYSICAL), highest=0.5)
    with pytest.raises(ValueError, match="nothing varies"):
        fit_broken_power_law(spectrum_of(torch.ones(64, 3, 16, 16), PHYSICAL), highest=0.5)
