"""Exponents of fields with a known exponent, from 200 fixed sets of 16 images each.

At least 180 of 200 intervals contain the true value with probability .999 if the coverage is 95 %, and .03 if it is 85 %.
"""

import math

import pytest
import torch

from smtool.spectrum import (
    HIGHEST_OF_IMAGES,
    HIGHEST_OF_LATENTS,
    PHYSICAL,
    REFERENCE,
    Spectrum,
    fit_power_law,
    ring_frequency,
    spectrum_of,
)
from smtool.spectrum.calibration import expected_power
from smtool.spectrum.psd import ring_means

NUM_SETS, NUM_IMAGES = 200, 16


def expected_spectrum(exponent: float, size: tuple[int, int], num_images: int = 4) -> Spectrum:
    rings = ring_means(expected_power(exponent, size, size)[None], PHYSICAL).expand(num_images, -1)
    frequency, count = ring_frequency(*size, PHYSICAL)
    return Spectrum(frequency, rings, count, PHYSICAL, size, size)


@pytest.mark.parametrize(("size", "channels", "canvas", "exponents"), [
    (8, 4, 64, (0.0, 1.0, 2.0, 3.0)),
    (16, 4, 64, (0.0, 1.0, 2.0, 3.0)),
    (32, 1, 96, (1.0, 2.0, 3.0)),
])
def test_the_exponent_of_known_fields_lies_inside_the_interval(known_fields, size, channels, canvas, exponents):
    for exponent, fields in known_fields(NUM_SETS * NUM_IMAGES, channels, exponents, side=size, canvas=canvas).items():
        fits = [fit_power_law(spectrum_of(images, PHYSICAL), highest=HIGHEST_OF_LATENTS) for images in fields.split(NUM_IMAGES)]
        inside = sum(low <= exponent <= high for low, high in (fit.interval for fit in fits))
        bias = sum(fit.exponent for fit in fits) / NUM_SETS - exponent
        assert inside >= 180, (exponent, inside)
        assert abs(bias) <= 0.02, (exponent, bias)
        assert sum(fit.half_width for fit in fits) / NUM_SETS < (0.2 if size == 8 else 0.08)


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (12, 20), (64, 48)])
@pytest.mark.parametrize("exponent", [-0.5, 0.0, 1.5, 3.0])
def test_the_expected_rings_give_the_exponent_itself(size, exponent):
    fit = fit_power_law(expected_spectrum(exponent, size), highest=HIGHEST_OF_IMAGES)
    assert fit.exponent == pytest.approx(exponent, abs=2e-3)
    assert fit.half_width == pytest.approx(0, abs=1e-9)
    assert fit.residual_db < 1
    assert fit.per_image_quantiles == pytest.approx([exponent] * 3, abs=2e-3)
    assert fit.fit_range == (0.9 / min(size), HIGHEST_OF_IMAGES)
    assert not fit.steeper_than_4_5


def test_gain_does_not_matter(rng):
    x = torch.from_numpy(rng.standard_normal((5, 3, 16, 16)).cumsum(-1))
    once, louder = (fit_power_law(spectrum_of(gain * x, PHYSICAL), highest=0.5) for gain in (1, 30))
    assert louder.exponent == pytest.approx(once.exponent, abs=1e-9)
    assert louder.half_width == pytest.approx(once.half_width, abs=1e-9)


def test_a_field_beyond_the_table_is_called_steeper_than_4_5():
    assert fit_power_law(expected_spectrum(4.8, (16, 16)), highest=0.5).steeper_than_4_5


def test_one_image_has_an_exponent_but_no_interval(rng):
    fit = fit_power_law(spectrum_of(torch.from_numpy(rng.standard_normal((1, 3, 16, 16))), PHYSICAL), highest=0.5)
    assert fit.half_width == math.inf
    assert abs(fit.exponent) < 1


def test_a_flat_image_among_others_has_no_exponent_of_its_own():
    spectrum = expected_spectrum(2.0, (16, 16))
    table = torch.cat([spectrum.power, torch.zeros(1, spectrum.power.shape[1])])
    fit = fit_power_law(Spectrum(spectrum.frequency, table, spectrum.count, PHYSICAL, (16, 16), (16, 16)), highest=0.5)
    assert (fit.num_images, len(fit.per_image)) == (5, 4)
    assert fit.exponent == pytest.approx(2, abs=2e-3)


def test_four_by_four_cells_get_no_fit(rng):
    with pytest.raises(ValueError, match=r"4x4 cells are too few for a fit .* only the ring powers are meaningful"):
        fit_power_law(spectrum_of(torch.from_numpy(rng.standard_normal((3, 4, 4, 4))), PHYSICAL), highest=0.5)


def test_reference_bins_get_no_exponent(rng):
    with pytest.raises(ValueError, match=r"PHYSICAL rings, but this spectrum is REFERENCE\.curve"):
        fit_power_law(spectrum_of(torch.from_numpy(rng.standard_normal((3, 4, 16, 16))), REFERENCE.curve), highest=0.5)


def test_images_in_which_nothing_varies_are_refused():
    with pytest.raises(ValueError, match="has no power"):
        fit_power_law(spectrum_of(torch.zeros(3, 3, 16, 16), PHYSICAL), highest=0.5)
