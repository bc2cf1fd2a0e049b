"""Intervals over photographs: crops of one photograph count as one unit."""

import numpy as np
import pytest
import scipy.stats
import torch

from smtool.spectrum.units import Units, log_band, mean_and_half_width

GROUPS = ["a", "b", "a", "c", "a"]


def test_rows_of_one_unit_are_averaged_in_order_of_first_appearance(rng):
    table = rng.standard_normal((5, 3))
    found = Units("photograph", GROUPS).collapse(torch.from_numpy(table))
    np.testing.assert_allclose(found, [table[[0, 2, 4]].mean(0), table[1], table[3]], rtol=1e-12)


def test_the_first_units_are_those_of_the_first_images():
    assert len(Units("photograph", GROUPS)) == 3
    assert Units("photograph", GROUPS).first(3).numbers().tolist() == [0, 1, 0]


def test_the_interval_of_a_mean_is_students(rng):
    table = rng.standard_normal((6, 2))
    mean, half_width = mean_and_half_width(torch.from_numpy(table))
    low, high = scipy.stats.t.interval(0.95, 5, loc=table.mean(0), scale=scipy.stats.sem(table))
    np.testing.assert_allclose(mean - half_width, low, rtol=1e-9)
    np.testing.assert_allclose(mean + half_width, high, rtol=1e-9)


def test_one_unit_has_no_interval_and_no_band():
    mean, half_width = mean_and_half_width(torch.tensor([[2.0, 3.0]]))
    assert half_width.isinf().all()
    assert all(bound.isnan().all() for bound in log_band(mean, half_width))
    assert log_band(torch.tensor(2.0), torch.tensor(0.0)) == (pytest.approx(2.0), pytest.approx(2.0))
