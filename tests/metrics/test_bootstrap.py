import pytest
import scipy.stats
import torch

from smtool.metrics.bootstrap import bootstrap_interval, student_quantile
from smtool.randomness import generator


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 255])
def test_student_quantile_equals_scipys(freedom):
    assert student_quantile(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-9)


def interval_of_mean(values, groups, replicates=2000):
    return bootstrap_interval(
        float(values.mean()), lambda chosen: float(values[chosen].mean()), groups, replicates=replicates, draws=generator("test")
    )


def test_the_interval_of_a_mean_is_the_textbook_one():
    values = torch.randn(40, generator=generator("values"))
    found = interval_of_mean(values, torch.arange(40))
    low, high = scipy.stats.t.interval(0.95, 39, values.mean().item(), values.std().item() / 40**0.5)
    assert found.groups == 40
    # 2000 replicates know a standard deviation to 1.6 %: four times that
    assert found.low == pytest.approx(low, abs=0.065 * (high - low))
    assert found.high == pytest.approx(high, abs=0.065 * (high - low))


def test_crops_of_one_photograph_count_once():
    photographs = torch.randn(6, generator=generator("photographs"))
    groups = torch.arange(6).repeat(20)      # not in order
    found = interval_of_mean(photographs[groups], groups)
    low, high = scipy.stats.t.interval(0.95, 5, photographs.mean().item(), photographs.std().item() / 6**0.5)
    assert found.groups == 6
    assert found.high - found.low == pytest.approx(high - low, rel=0.065)


def test_the_interval_covers_the_truth_nineteen_times_in_twenty():
    covered = 0
    for trial in range(200):
        values = torch.randn(12, generator=generator("coverage", trial))
        found = interval_of_mean(values, torch.arange(12), replicates=100)
        covered += found.low < 0 < found.high
    assert 180 <= covered <= 198      # 190 expected; binomial sd 3.1


def test_the_same_seed_gives_the_same_interval():
    values, groups = torch.arange(10.0), torch.arange(10)
    assert interval_of_mean(values, groups) == interval_of_mean(values, groups)


def test_two_groups_are_too_few_for_an_interval():
    assert interval_of_mean(torch.rand(30), torch.arange(30) % 2) is None
