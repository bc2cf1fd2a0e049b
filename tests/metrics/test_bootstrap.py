import math

import pytest
import scipy.stats
import torch

from smtool.metrics.bootstrap import bias_of_size, bootstrap_error
from smtool.metrics.frechet import FeatureStats, frechet_distance
from smtool.randomness import generator


def error_of_mean(values, groups, replicates=2000):
    return bootstrap_error(lambda chosen: float(values[chosen].mean()), groups, replicates=replicates, draws=generator("test"))


# with 2000 replicates a standard deviation is precise to 1.6 %: four times that
CLOSE = 0.065


def test_the_error_of_a_mean_is_the_textbook_one():
    values = torch.randn(10, generator=generator("values"))
    assert error_of_mean(values, torch.arange(10)) == pytest.approx(scipy.stats.sem(values.numpy()), rel=CLOSE)


def test_crops_of_one_photograph_count_once():
    photographs = torch.randn(6, generator=generator("photographs"))
    groups = 10 * torch.arange(6).repeat(20)      # group numbers with gaps, not in order
    found = error_of_mean(photographs.repeat(20), groups)
    assert found == pytest.approx(scipy.stats.sem(photographs.numpy()), rel=CLOSE)


def test_groups_of_different_sizes_are_resampled_whole():
    groups = torch.tensor([2, 0, 1, 1, 2, 1, 7])
    sizes = {0: 1, 1: 3, 2: 2, 7: 1}

    def statistic(chosen):
        for group, size in sizes.items():
            members = torch.nonzero(groups == group).flatten()
            drawn = torch.bincount(chosen, minlength=7)[members]
            assert len(members) == size and (drawn == drawn[0]).all()
        return float(len(chosen))

    assert bootstrap_error(statistic, groups, replicates=50, draws=generator("test")) > 0


def test_the_interval_covers_the_truth_nineteen_times_in_twenty():
    covered, quantile = 0, scipy.stats.t.ppf(0.975, 11)
    for trial in range(200):
        values = torch.randn(12, generator=generator("coverage", trial))
        covered += abs(float(values.mean())) < quantile * error_of_mean(values, torch.arange(12), replicates=100)
    assert 180 <= covered <= 198      # 190 expected; binomial sd 3.1


def test_the_same_seed_gives_the_same_error():
    values, groups = torch.arange(10.0), torch.arange(10)
    assert error_of_mean(values, groups) == error_of_mean(values, groups)


def test_a_single_group_has_an_infinite_error():
    assert error_of_mean(torch.rand(30), torch.zeros(30, dtype=torch.int64)) == math.inf


def test_halving_finds_the_bias_of_a_variance_that_is_divided_by_n():
    values = torch.randn(4000, generator=generator("values"), dtype=torch.float64) * 3
    blocks = values.view(100, 40)
    # 9 / 40 too small on average; 100 blocks of 40 estimate this to about 3 %
    found = [
        bias_of_size(lambda i, x=x: x[i].var(correction=0).item(), 40, halvings=20, draws=generator("halves", k))
        for k, x in enumerate(blocks)
    ]
    assert sum(found) / 100 == pytest.approx(-9 / 40, rel=0.12)


def test_halving_finds_most_of_the_bias_of_a_frechet_distance_of_few_images():
    """The distance of 8 unit normals to their own exact moments is 0, so the estimated distance is all bias."""
    exact = FeatureStats.given(torch.zeros(8), torch.eye(8))

    def distance(x):
        return frechet_distance(FeatureStats.of(x), exact)

    draws = [torch.randn(200, 8, generator=generator("features", k), dtype=torch.float64) for k in range(20)]
    excess = sum(distance(x) for x in draws) / 20
    found = sum(
        bias_of_size(lambda i, x=x: distance(x[i]), 200, halvings=4, draws=generator("halves", k)) for k, x in enumerate(draws)
    )
    assert found / 20 == pytest.approx(excess, rel=0.15)
