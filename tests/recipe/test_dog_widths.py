"""REPA-DoG's widths: each can be set alone, and the race over them contains the whole grid."""

import itertools
import math

import pytest

from smtool.recipe import TrainDiT, load
from smtool.recipe.race import load_race

GRID = set(itertools.product((0, 0.5, 0.75, 1), (2, 3, 4, 8, math.inf), (0.6, 1)))


@pytest.mark.parametrize("words", [("0", "inf", "0.6"), ("0.75", "'inf'", "1"), ("1", '"inf"', "1.0"), ("0.5", "8", "0.6")])
def test_widths_are_set_one_by_one(words):
    changes = [f"alignment.{key}={word}" for key, word in zip(("sigma1", "sigma2", "alpha"), words, strict=True)]
    table = load("repa-dog", TrainDiT, changes).tables.alignment
    expected = tuple(float(word.strip("'\"")) for word in words)
    assert (table.sigma1, float(table.sigma2), table.alpha) == expected


def test_the_race_has_every_point_of_the_grid_once_with_equal_other_settings():
    _, entries = load_race("race/dog-widths")
    tables = [entry.transformer.tables for entry in entries]
    points = [(each.alignment.sigma1, float(each.alignment.sigma2), each.alignment.alpha) for each in tables]
    assert len(points) == len(GRID) == 40 and set(points) == GRID
    names = [f"dog-{s1:g}-{s2:g}-{alpha:g}" for s1, s2, alpha in points]
    assert [entry.name for entry in entries] == names
    same = {"sigma1": 0.0, "sigma2": 2.0, "alpha": 1.0}
    alike = [each.model_copy(update={"alignment": each.alignment.model_copy(update=same)}) for each in tables]
    assert all(each == alike[0] for each in alike)
