"""The judge study: distances of subsets equal those of smtool.metrics; intervals equal scipy's."""

import pytest
import scipy.stats
import torch

from benchmarks.judge_study.distances import METRICS
from benchmarks.judge_study.power import interval, random_rows, right_orders
from smtool.metrics.frechet import frechet_distance_of_features
from smtool.metrics.kernel import kernel_distance


def test_distances_of_subsets_are_those_of_the_chosen_rows():
    draws = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 8, generator=draws), torch.randn(50, 8, generator=draws) + 0.3
    ours, theirs = random_rows(60, 30, 3, "ours"), random_rows(50, 40, 3, "theirs")
    pairs = [(x[a], y[b]) for a, b in zip(ours, theirs, strict=True)]
    fd, kd = METRICS["fd"](y, theirs)(x, ours), METRICS["kd"](y, theirs)(x, ours)
    assert fd.tolist() == pytest.approx([frechet_distance_of_features(a, b) for a, b in pairs], rel=1e-6)
    assert kd.tolist() == pytest.approx([kernel_distance(a, b).value for a, b in pairs], rel=1e-6)
    same = METRICS["mind"](x, ours)(x, ours)
    assert same.tolist() == [0.0] * 3


def test_power_is_the_share_of_right_orders_with_wilsons_interval():
    assert right_orders(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([2.0, 1.0, 3.0, 9.0])) == 0.625
    expected = scipy.stats.binomtest(73, 100).proportion_ci(method="wilson")
    assert interval(0.73, 100) == pytest.approx((expected.low, expected.high), rel=1e-6)
