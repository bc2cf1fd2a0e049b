"""Sentences and tables of a race, from invented scores."""

import random

import pytest

from smtool.commands.race.result import Correlation, SeedMean
from smtool.commands.race.tables import chance, mean_cell, told


def test_there_is_one_sentence_for_each_winner_the_best_first(ranked):
    scores = {"c": [30.0, 31.0, 30.5], "a": [10.0, 11.0, 10.5], "b": [20.0, 21.0, 20.5]}
    assert told(ranked(scores)) == ["a beats b and c in 3 of 3 seeds.", "b beats c in 3 of 3 seeds."]


def test_pairs_without_significant_difference_are_counted_not_named(ranked):
    scores = {"a": [1.0, 2.0, 3.0], "b": [3.0, 1.0, 2.1], "far": [90.0, 91.0, 92.0]}
    assert told(ranked(scores)) == [
        "a beats far in 3 of 3 seeds.",
        "b beats far in 3 of 3 seeds.",
        "1 of 3 pairs do not differ significantly.",
    ]


def test_every_significant_pair_is_in_exactly_one_sentence(ranked):
    rng = random.Random(0)
    result = ranked({f"r{number}": [number + rng.gauss(0, 0.7) for _ in range(3)] for number in range(6)})
    *sentences, rest = told(result)
    pairs = result.rankings["random"].generation.pairs
    named = sum(sentence.split(" beats ")[1].count("r") for sentence in sentences)
    assert named == sum(pair.told for pair in pairs)
    assert rest == f"{len(pairs) - named} of {len(pairs)} pairs do not differ significantly."


@pytest.mark.parametrize(("fraction", "words"), [(0.0005, "< 0.01"), (0.0049, "< 0.01"), (0.005, "0.01"), (0.33, "0.33")])
def test_a_very_small_p_value_is_not_shown_as_zero(fraction, words):
    assert chance(Correlation(value=0.5, low=None, high=None, chance=fraction, points=3)) == words


@pytest.mark.parametrize(("half_width", "shown"), [(0.25, "23.49 ± 0.25"), (0.0, "23.49"), (None, "23.49")])
def test_scores_that_all_seeds_share_have_no_interval(half_width, shown):
    assert mean_cell(SeedMean(value=23.49, half_width=half_width, seeds=3), 2) == shown
