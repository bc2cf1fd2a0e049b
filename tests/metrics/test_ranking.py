import math

import numpy as np
import pytest
import scipy.stats

from smtool.metrics.ranking import Place, paired, places, seed_interval

A = {0: 10.0, 1: 12.0, 2: 11.0, 3: 13.0, 4: 9.0}


def _quantile(degrees):
    return float(scipy.stats.t.ppf(0.975, degrees))


def test_a_difference_has_the_interval_of_scipys_paired_t_test():
    rng = np.random.default_rng(0)
    b = {seed: value + 1.5 + rng.standard_normal() for seed, value in A.items()}
    (pair,) = paired({"b": b, "a": A}, quantile=_quantile)
    reference = scipy.stats.ttest_rel([b[s] for s in A], [A[s] for s in A])
    interval = reference.confidence_interval(0.95)
    assert (pair.better, pair.worse) == ("a", "b")
    assert pair.difference - pair.half_width == pytest.approx(interval.low, abs=1e-12)
    assert pair.difference + pair.half_width == pytest.approx(interval.high, abs=1e-12)
    assert pair.is_told == (reference.pvalue < 0.05)


def test_pairing_finds_differences_that_the_means_do_not():
    b = {seed: value + 0.5 + 0.01 * seed for seed, value in A.items()}
    (pair,) = paired({"a": A, "b": b}, quantile=_quantile)
    (_, spread), (mean, _) = seed_interval(A, quantile=_quantile), seed_interval(b, quantile=_quantile)
    assert spread > 1 > mean - 11
    assert pair.is_told
    assert pair.sentence() == "a beats b in 5 of 5 seeds"


def test_a_difference_within_seed_noise_is_undecided():
    b = {0: 12.0, 1: 10.0, 2: 11.5, 3: 12.5, 4: 9.5}
    (pair,) = paired({"a": A, "b": b}, quantile=_quantile)
    assert not pair.is_told
    assert pair.sentence() == "a or b: cannot tell (a is lower in 3 of 5 seeds)"


def test_only_common_seeds_count_and_one_seed_gives_no_interval():
    (pair,) = paired({"a": A, "b": {2: 50.0, 9: 0.0}}, quantile=_quantile)
    assert (pair.seeds, pair.wins, pair.difference) == (1, 1, 39.0)
    assert pair.half_width == math.inf
    assert not pair.is_told
    assert paired({"a": A, "b": {9: 1.0}}, quantile=_quantile) == []


def test_undecided_pairs_share_a_range_of_places():
    scores = {
        "first": {0: 1.0, 1: 1.1, 2: 0.9},
        "middle": {0: 5.0, 1: 6.0, 2: 5.5},
        "also middle": {0: 5.6, 1: 5.2, 2: 5.4},
        "last": {0: 20.0, 1: 20.1, 2: 20.3},
    }
    found = places(list(scores), paired(scores, quantile=_quantile))
    assert found == {"first": Place(1, 1), "middle": Place(2, 3), "also middle": Place(2, 3), "last": Place(4, 4)}
    assert [str(place) for place in found.values()] == ["1", "2-3", "2-3", "4"]


def test_five_percent_of_equal_pairs_are_significant():
    """Pairs without any difference, three seeds: about one in twenty is significant."""
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(1000):
        scores = {name: dict(enumerate(rng.standard_normal(3))) for name in "ab"}
        told += paired(scores, quantile=_quantile)[0].is_told
    assert 30 <= told <= 75
