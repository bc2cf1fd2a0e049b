"""Limits of scores whose bias is known, and the coverage of their intervals."""

import pytest
import torch

from smtool.metrics.extrapolation import GROUPS, extrapolated
from smtool.metrics.frechet import FeatureStats, Gaussian
from smtool.randomness import generator
from smtool.spectrum.jackknife import student_t_quantile


def test_the_limit_of_a_score_that_is_linear_in_one_over_n_is_exact():
    found = extrapolated(lambda chosen: 3.0 + 50.0 / len(chosen), 1000, halvings=2, draws=generator("halves"))
    assert found.value == pytest.approx(3.0, abs=1e-9)
    assert (found.fewest, found.most) == (500, 1000)


def test_the_error_for_a_mean_is_that_of_the_mean():
    """A mean has no bias: twice the mean of all minus the mean over halves is the mean of all."""
    values = torch.randn(4000, generator=generator("values"), dtype=torch.float64) * 2
    found = extrapolated(lambda chosen: values[chosen].mean().item(), 4000, halvings=2, draws=generator("halves"))
    assert found.value == pytest.approx(values.mean().item(), abs=1e-9)
    assert found.error == pytest.approx(2 / 4000**0.5, rel=0.6)      # from ten groups: precise to about a quarter


def test_the_interval_of_a_frechet_distance_contains_its_limit():
    """400 normals of 4 dimensions, scaled by 1.2, against the exact moments of unit normals: the limit is 4 x 0.2^2."""
    exact = Gaussian.of_stats(FeatureStats.given(torch.zeros(4), torch.eye(4)))
    quantile, held, values, plain = student_t_quantile(0.975, GROUPS - 1), 0, [], []
    for trial in range(60):
        features = 1.2 * torch.randn(400, 4, generator=generator("features", trial), dtype=torch.float64)

        def distance(chosen, features=features):
            return Gaussian.of(features[chosen]).distance(exact)

        found = extrapolated(distance, 400, halvings=2, draws=generator("halves", trial))
        held += abs(found.value - 0.16) <= quantile * found.error
        values.append(found.value)
        plain.append(distance(torch.arange(400)))
    assert 50 <= held <= 60      # 57 expected
    assert sum(values) / 60 == pytest.approx(0.16, abs=0.01)
    assert sum(plain) / 60 > 0.18


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="19 samples are too few to extrapolate from"):
        extrapolated(lambda chosen: 0.0, 19, halvings=1, draws=generator("halves"))
