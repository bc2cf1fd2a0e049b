"""What a race says in words and tables of scores that are made up."""

import random

import pytest

from smtool.commands.race.result import Correlation
from smtool.commands.race.tables import chance, told


def test_a_winner_and_all_that_it_beats_share_a_sentence_the_best_first(ranked):
    scores = {"c": [30.0, 31.0, 30.5], "a": [10.0, 11.0, 10.5], "b": [20.0, 21.0, 20.5]}
    assert told(ranked(scores)) == ["a beats b and c in 3 of 3 seeds.", "b beats c in 3 of 3 seeds."]


def test_what_seeds_cannot_tell_is_counted_and_not_named(ranked):
    scores = {"a": [1.0, 2.0, 3.0], "b": [3.0, 1.0, 2.1], "far": [90.0, 91.0, 92.0]}
    assert told(ranked(scores)) == [
        "a beats far in 3 of 3 seeds.",
        "b beats far in 3 of 3 seeds.",
        "1 of 3 pairs cannot be told apart.",
    ]


def test_every_told_pair_is_in_exactly_one_sentence(ranked):
    rng = random.Random(0)
    result = ranked({f"r{number}": [number + rng.gauss(0, 0.7) for _ in range(3)] for number in range(6)})
    *sentences, rest = told(result)
    pairs = result.rankings["random"].generation.pairs
    named = sum(sentence.split(" beats ")[1].count("r") for sentence in sentences)
    assert named == sum(pair.told for pair in pairs)
    assert rest == f"{len(pairs) - named} of {len(pairs)} pairs cannot be told apart."


@pytest.mark.parametrize(("fraction", "words"), [(0.0005, "< 0.01"), (0.0049, "< 0.01"), (0.005, "0.01"), (0.33, "0.33")])
def test_a_chance_below_what_is_shown_is_not_shown_as_none(fraction, words):
    assert chance(Correlation(value=0.5, low=None, high=None, chance=fraction, points=3)) == words
