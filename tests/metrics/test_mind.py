"""MIND against scipy's one-dimensional Wasserstein transport, closed forms of Gaussians, and repeated draws."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from smtool.metrics.mind import DIRECTIONS, mind


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def features(count, dim, *, seed, shift=0.0, scale=1.0):
    return shift + scale * torch.randn(count, dim, generator=draws(seed), dtype=torch.float64)


def restated(x, y, seed, directions=DIRECTIONS):
    """The subset first, then the directions, from one generator; every transport by linear assignment."""
    generator = draws(seed)
    count = min(len(x), len(y))
    x, y = (z if len(z) == count else z[torch.randperm(len(z), generator=generator)[:count]] for z in (x, y))
    units = torch.randn(directions, x.shape[1], generator=generator).double()
    found = []
    for unit in units / units.norm(dim=1, keepdim=True):
        cost = np.subtract.outer((x @ unit).numpy(), (y @ unit).numpy()) ** 2
        rows, columns = linear_sum_assignment(cost)
        found.append(cost[rows, columns].mean())
    return 3 * x.shape[1] * float(np.mean(found))


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 60), (60, 40)])
def test_it_is_the_mean_cost_of_the_best_assignments_along_random_directions(n, m):
    x, y = features(n, 5, seed=1), features(m, 5, seed=2, shift=0.5, scale=2.0)
    found = mind(x, y, draws=draws(3), directions=20)
    assert found.value == pytest.approx(restated(x, y, 3, 20), rel=1e-10)
    assert found.count == 40


def test_few_directions_at_a_time_give_the_same(monkeypatch):
    x, y = features(30, 4, seed=1), features(30, 4, seed=2, shift=1.0)
    whole = mind(x, y, draws=draws(3))
    monkeypatch.setattr("smtool.metrics.mind._NUMBERS", 1000)
    parts = mind(x, y, draws=draws(3))
    assert (parts.value, parts.error) == (pytest.approx(whole.value), pytest.approx(whole.error))


def test_a_shifted_set_is_three_squared_shifts_away_and_an_equal_set_zero():
    """W2 of a shift by s along a direction u is u.s, and the mean of (u.s)^2 over unit directions is |s|^2 / D."""
    x = features(500, 3, seed=1)
    assert mind(x, x, draws=draws()).value == 0
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = mind(x, x + shift, draws=draws(), directions=20_000)
    assert found.value == pytest.approx(3 * float(shift.square().sum()), rel=0.02)


def test_gaussians_of_other_scale_have_the_closed_form():
    """W2^2 of N(0, a^2) and N(0, b^2) is (a - b)^2 along every direction."""
    found = mind(features(20_000, 4, seed=1), features(20_000, 4, seed=2, scale=2.0), draws=draws(), directions=200)
    assert found.value == pytest.approx(3 * 4 * 1.0, rel=0.03)


@pytest.mark.parametrize(("shift", "scale"), [(0.7, 1.0), (0.0, 1.5)])
def test_the_error_is_the_standard_deviation_over_other_draws_of_the_first_set(shift, scale):
    y = features(400, 4, seed=0)
    found = [mind(features(400, 4, seed=seed, shift=shift, scale=scale), y, draws=draws(), directions=100)
             for seed in range(1, 121)]
    spread = torch.tensor([one.value for one in found]).std()
    assert 0.85 < float(np.mean([one.error for one in found])) / float(spread) < 1.2


def test_the_mean_error_shrinks_with_the_root_of_the_number():
    few, many = (mind(features(n, 4, seed=1, shift=1.0), features(n, 4, seed=2), draws=draws()) for n in (200, 3200))
    assert few.error / many.error == pytest.approx(math.sqrt(16), rel=0.2)


@pytest.mark.parametrize(("x", "y", "said"), [
    (torch.zeros(1, 3), torch.zeros(5, 3), "at least 2 feature vectors of each, found 1 and 5"),
    (torch.zeros(4, 3), torch.zeros(5, 2), "features of 3 and of 2 dimensions"),
    (torch.full((4, 3), torch.nan), torch.zeros(5, 3), "4 of 4 feature vectors hold NaN"),
])
def test_bad_features_are_refused(x, y, said):
    with pytest.raises(ValueError, match=said):
        mind(x, y, draws=draws())


@pytest.mark.parametrize(("n", "m", "dim", "value"), [(300, 300, 64, 70.39163017), (500, 300, 512, 572.98292542)])
def test_it_is_that_of_torch_fidelity(n, m, dim, value):
    """Values of mind_features_to_metric(..., rng_seed=2020) of torch-fidelity's main branch at 5e211a9, in float32."""
    x, y = torch.randn(n, dim, generator=draws(1)), 0.3 + 1.5 * torch.randn(m, dim, generator=draws(2))
    assert mind(x, y, draws=draws(2020)).value == pytest.approx(value, rel=1e-6)
