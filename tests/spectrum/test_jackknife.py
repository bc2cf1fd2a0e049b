"""Compare Student's t with scipy, and the jackknife with a plain loop and with the standard error of a mean."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from smtool.spectrum.jackknife import jackknife_half_width, jackknife_half_widths, leave_one_out, student_t_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 15, 63, 239, 1000, 4999])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.995])
def test_the_t_quantile_equals_scipy(degrees, probability):
    assert student_t_quantile(probability, degrees) == pytest.approx(scipy.stats.t.ppf(probability, degrees), rel=1e-9)


def test_leave_one_out_equals_deleting_rows(rng):
    table = rng.random((7, 4))
    expected = np.stack([np.delete(table, i, axis=0).mean(0) for i in range(7)])
    np.testing.assert_allclose(leave_one_out(torch.from_numpy(table)).numpy(), expected, rtol=1e-13)


def test_the_half_width_of_a_mean_is_the_textbook_interval(rng):
    values = rng.standard_normal(12)
    low, high = scipy.stats.t.interval(0.95, 11, loc=values.mean(), scale=scipy.stats.sem(values))
    found = jackknife_half_width(lambda mean: mean[:, 0], torch.from_numpy(values)[:, None])
    assert found == pytest.approx((high - low) / 2, rel=1e-9)


def test_paired_tables_leave_the_same_row_out(rng):
    x, y = rng.standard_normal((2, 9))
    found = jackknife_half_width(lambda a, b: (a - b)[:, 0], torch.from_numpy(x)[:, None], torch.from_numpy(y)[:, None])
    assert found == pytest.approx(scipy.stats.t.ppf(0.975, 8) * scipy.stats.sem(x - y), rel=1e-9)


def test_one_image_has_an_infinite_interval():
    assert jackknife_half_width(lambda mean: mean[:, 0], torch.ones(1, 3)) == math.inf


@pytest.mark.parametrize(("probability", "degrees"), [(0.4, 3), (1.0, 3), (0.9, 0)])
def test_a_quantile_out_of_range_is_refused(probability, degrees):
    with pytest.raises(ValueError, match=r"0\.5 <= probability < 1"):
        student_t_quantile(probability, degrees)


def test_every_number_has_the_half_width_it_has_alone(rng):
    table = torch.from_numpy(rng.standard_normal((7, 3)))
    found = jackknife_half_widths(lambda mean: mean.square(), table)
    alone = [jackknife_half_width(lambda mean, bin=bin: mean[:, bin].square(), table) for bin in range(3)]
    assert found.tolist() == pytest.approx(alone, rel=1e-12)
    assert jackknife_half_widths(lambda mean: mean, table[:1]).tolist() == [math.inf] * 3
