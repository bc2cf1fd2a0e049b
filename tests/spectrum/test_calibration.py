"""Compare the expected DCT power with the covariance of a periodic field, and the weighted fit with numpy's polyfit."""

import numpy as np
import pytest
import scipy.fft
import torch

from smtool.spectrum import PHYSICAL, ring_frequency
from smtool.spectrum.calibration import FitRange, calibration_table, expected_power
from smtool.spectrum.psd import ring_means


def expected_by_covariance(exponent: float, source: tuple[int, int]) -> np.ndarray:
    """Expected power from the covariance matrix of the pixels, transformed by the DCT along both of its axes.

    The covariance is the inverse DFT of the density on a field 8 times larger.
    """
    rows, columns = (8 * n for n in source)
    squared = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.fftfreq(columns) ** 2
    density = np.where(squared > 0, np.where(squared > 0, squared, 1.0) ** (-exponent / 2), 0.0)
    correlation = np.fft.ifft2(density).real
    y, x = (index.ravel() for index in np.indices(source))
    covariance = correlation[y[:, None] - y, x[:, None] - x].reshape(*source, *source)
    half = scipy.fft.dctn(covariance, axes=(0, 1), norm="ortho")
    return np.einsum("uvuv->uv", scipy.fft.dctn(half, axes=(2, 3), norm="ortho"))


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.7, 2.0, 3.5])
@pytest.mark.parametrize(("source", "size"), [((6, 6), (6, 6)), ((5, 8), (5, 8)), ((8, 12), (4, 6))])
def test_the_expected_power_equals_the_canvas_covariance(exponent, source, size):
    expected = expected_by_covariance(exponent, source)[:size[0], :size[1]]
    np.testing.assert_allclose(expected_power(exponent, size, source).numpy(), expected, rtol=1e-9)


def test_white_fields_have_unit_power_but_for_the_missing_mean():
    power = expected_power(0.0, (8, 8), (8, 8))
    assert power[0, 0] < 1
    torch.testing.assert_close(power[1:, 1:], torch.ones(7, 7, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (12, 20)])
def test_the_slope_equals_numpys_weighted_polyfit(rng, size):
    frequency, count = (t.numpy() for t in ring_frequency(*size, PHYSICAL))
    power = rng.random(len(frequency)) + 0.1
    low = 0.9 / min(size)
    inside = (frequency >= low) & (frequency <= 0.5)
    weight = count[inside] ** 0.25                                          # polyfit squares the weights
    line = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1, w=weight)
    fit_range = FitRange(size, size, low, 0.5)
    assert fit_range.slope(torch.from_numpy(power)).item() == pytest.approx(-line[0], rel=1e-10)
    off = np.abs(np.log(power[inside]) - np.polyval(line, np.log(frequency[inside]))).max() * 10 / np.log(10)
    assert fit_range.residual_db(torch.from_numpy(power)) == pytest.approx(off, rel=1e-10)


@pytest.mark.parametrize(("size", "source"), [((8, 8), (8, 8)), ((8, 8), (64, 64)), ((16, 16), (16, 16)), ((12, 20), (24, 40))])
@pytest.mark.parametrize("exponent", [-0.42, 0.0, 1.234, 2.0, 3.77, 4.9])
def test_reading_the_table_returns_the_true_exponent_between_its_steps(size, source, exponent):
    fit_range = FitRange(size, source, 0.9 / min(size), 0.5)
    rings = ring_means(expected_power(exponent, size, source)[None], PHYSICAL)[0]
    assert fit_range.exponent(7.0 * rings).item() == pytest.approx(exponent, abs=2e-3)     # linear interpolation, .1


def test_seven_thirteen_and_nineteen_rings_are_fitted():
    """The numbers of rings at 8, 16 and 32 cells (spectrum.md#power-law-fit)."""
    assert [FitRange((n, n), (n, n), 0.9 / n, 0.5).num_rings for n in (8, 16, 32)] == [7, 13, 19]


def test_the_table_rises_even_where_leakage_turns_it_back():
    true, shown = calibration_table(FitRange((8, 8), (256, 256), 0.9 / 8, 0.5))
    assert bool((shown.diff() > 0).all())
    assert -1.5 < true[0] < -0.5 and true[-1] == 5


def test_too_few_rings_are_refused():
    with pytest.raises(ValueError, match="a slope needs 3"):
        FitRange((8, 8), (8, 8), 0.4, 0.5).slope(torch.ones(8))
