"""Compare f* with closed forms, with a plain search over frequencies, and with noised fields of known spectrum."""

import math

import numpy as np
import pytest
import scipy.fft
import torch
from torch.testing import assert_close

from smtool.spectrum import (
    PHYSICAL,
    falling_power,
    fit_power_law,
    flow_ratio,
    highest_frequency,
    prediction_error,
    radial_low_pass,
    spectrum_of,
)

FREQUENCY = torch.arange(1, 65, dtype=torch.float64) / 2
TIMES = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)


@pytest.mark.parametrize("threshold", [0.25, 1.0, 9.0])
@pytest.mark.parametrize("exponent", [0.8, 2.0, 3.3])
def test_a_power_law_crosses_the_threshold_at_the_closed_form(exponent, threshold):
    power, ratio = 40 * FREQUENCY**-exponent, flow_ratio(TIMES)
    expected = (40 * ratio / threshold) ** (1 / exponent)
    inside = (expected > FREQUENCY[0]) & (expected < FREQUENCY[-1])
    assert inside.sum() > 8
    found = highest_frequency(FREQUENCY, power, ratio, threshold=threshold)
    assert_close(found[inside], expected[inside], rtol=1e-9, atol=0)
    assert bool((found[expected > FREQUENCY[-1]] == FREQUENCY[-1]).all())
    assert bool(found[expected < FREQUENCY[0]].isnan().all())
    law = falling_power(FREQUENCY, power, torch.ones(64), exponent)
    assert_close(law.highest_frequency(ratio, threshold=threshold), expected, rtol=1e-9, atol=0)


def test_a_spectrum_with_a_hump_is_searched_from_above(rng):
    """Compare with a walk over a fine grid of the interpolated spectrum, from the highest frequency down."""
    power = torch.from_numpy(np.exp(rng.standard_normal(64))) / FREQUENCY
    ratio = flow_ratio(TIMES)
    fine = np.exp(np.linspace(np.log(0.5), np.log(32), 200_001))
    dense = np.exp(np.interp(np.log(fine), np.log(FREQUENCY.numpy()), np.log(power.numpy())))
    found = highest_frequency(FREQUENCY, power, ratio)
    for one, r in zip(found.tolist(), ratio.tolist(), strict=True):
        above = np.flatnonzero(r * dense >= 1)
        assert math.isnan(one) if not len(above) else one == pytest.approx(fine[above[-1]], rel=1e-4)


def test_f_star_rises_while_noise_is_removed_for_any_spectrum(rng):
    for _ in range(20):
        power = torch.from_numpy(np.exp(2 * rng.standard_normal(64)))
        rising = highest_frequency(FREQUENCY, power, flow_ratio(TIMES.flip(0)))
        seen = rising[~rising.isnan()]
        assert bool((seen.diff() >= 0).all()) and bool((rising.isnan().int().diff() <= 0).all())


def test_scaling_the_snr_by_c_multiplies_f_star_by_the_root_of_c():
    power = 40 * FREQUENCY**-2.5
    once, scaled = (highest_frequency(FREQUENCY, power, c * flow_ratio(TIMES)) for c in (1.0, 4.0))
    both = (once > FREQUENCY[0]) & (scaled < FREQUENCY[-1])
    assert both.sum() > 10
    assert_close((scaled / once)[both], torch.full((int(both.sum()),), 4 ** (1 / 2.5), dtype=torch.float64), rtol=1e-9, atol=0)
    assert falling_power(FREQUENCY, power, torch.ones(64), 2.5).gain(4.0) == pytest.approx(4**0.4)


def test_the_prediction_follows_synthetic_fields_of_a_power_law(rng):
    """64 Gaussian fields with DCT power f^-2, 64 x 64: f* predicted from the fit is within a tenth of an octave.

    The fitted exponent is calibrated for fields without edges, so it is above the slope of these DCT cells by about 0.02.
    """
    u, v = np.meshgrid(*[np.arange(64) / 128] * 2, indexing="ij")
    radius = np.hypot(u, v)
    radius[0, 0] = 1
    fields = scipy.fft.idctn(rng.standard_normal((64, 1, 64, 64)) / radius, axes=(-2, -1), norm="ortho")
    spectrum = spectrum_of(torch.from_numpy(fields), PHYSICAL)
    law = fit_power_law(spectrum, highest=0.5)
    chosen = spectrum.frequency > 0.9 / 64
    rings = spectrum.frequency[chosen], spectrum.mean()[chosen]
    fitted = falling_power(*rings, spectrum.count[chosen], law.exponent)
    assert fitted.level == pytest.approx(1.0, rel=0.1)
    error = prediction_error(*rings, fitted, snr_scale=4.0)
    assert error.rms < 0.1 and error.largest < 0.15
    assert error.gain == pytest.approx(2.0, rel=0.03)


def test_a_knee_makes_the_prediction_wrong_by_its_octaves():
    """Power f^-1 up to 4 cycles and f^-4 above it. A law f^-1 is wrong by log2(f / 4) of 3 octaves per octave at f > 4."""
    power = torch.where(FREQUENCY < 4, 1 / FREQUENCY, 64 * FREQUENCY**-4.0)
    law = falling_power(FREQUENCY[:8], power[:8], torch.ones(8), 1.0)
    error = prediction_error(FREQUENCY, power, law, snr_scale=2.0)
    assert error.largest == pytest.approx(3 * math.log2(32 / 4), rel=0.03)


def test_white_and_blue_spectra_have_no_order():
    for exponent in (0.0, -0.5):
        with pytest.raises(ValueError, match="does not fall with frequency"):
            falling_power(FREQUENCY, FREQUENCY**-exponent, torch.ones(64), exponent)
    law = falling_power(FREQUENCY, 1 / FREQUENCY, torch.ones(64), 1.0)
    with pytest.raises(ValueError, match="at the same noise level"):
        prediction_error(FREQUENCY, torch.ones(64), law, snr_scale=4.0)


@pytest.mark.parametrize(("frequency", "power", "threshold", "says"), [
    (FREQUENCY, FREQUENCY[1:], 1.0, "with a power each"),
    (FREQUENCY[:1], FREQUENCY[:1], 1.0, "two frequencies"),
    (FREQUENCY.flip(0), FREQUENCY, 1.0, "ascend"),
    (FREQUENCY, FREQUENCY - 0.5, 1.0, "positive, finite power"),
    (FREQUENCY, FREQUENCY, 0.0, "threshold of the SNR must be a positive number, but is 0"),
    (FREQUENCY, FREQUENCY, math.nan, "must be a positive number, but is nan"),
])
def test_bad_spectra_and_thresholds_are_refused(frequency, power, threshold, says):
    with pytest.raises(ValueError, match=says):
        highest_frequency(frequency, power, flow_ratio(TIMES), threshold=threshold)


def test_the_radial_low_pass_zeroes_the_cells_above_a_frequency(rng):
    x = rng.standard_normal((2, 3, 12, 16))
    u, v = np.meshgrid(np.arange(12) / 24, np.arange(16) / 32, indexing="ij")
    for highest in (0.0, 0.1, 0.31, 0.8):
        cells = scipy.fft.dctn(x, axes=(-2, -1), norm="ortho") * (np.hypot(u, v) <= highest)
        expected = scipy.fft.idctn(cells, axes=(-2, -1), norm="ortho")
        assert_close(radial_low_pass(torch.from_numpy(x), highest).numpy(), expected, rtol=0, atol=1e-12)
    flat = radial_low_pass(torch.from_numpy(x), math.nan)
    assert_close(flat, torch.from_numpy(x).mean((-2, -1), keepdim=True).expand_as(flat), rtol=0, atol=1e-12)
