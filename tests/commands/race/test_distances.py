"""Distances of a race by each metric, compared with scipy, a double loop, and sorted projections in numpy."""

import math
from typing import get_args

import numpy as np
import pytest
import torch

from smtool.commands.race.distances import distances_to, features_of
from smtool.commands.race.ranking import ranking_by
from smtool.features.load import load_extractor
from smtool.metrics.mind import DIRECTIONS
from smtool.randomness import generator
from smtool.recipe.race import Metric


@pytest.fixture(scope="module")
def sets() -> dict[str, torch.Tensor]:
    """Three sets of uint8 images (N, 3, 16, 16), of different contrast; features need more images than dimensions."""
    draws = torch.Generator().manual_seed(0)
    sizes = {"reference": (90, 60), "samples": (70, 30), "reconstructions": (70, 50)}
    return {
        name: (128 + spread * torch.randn(count, 3, 16, 16, generator=draws)).clamp(0, 255).byte()
        for name, (count, spread) in sizes.items()
    }


@pytest.fixture(scope="module")
def features(sets) -> dict[str, np.ndarray]:
    return {name: features_of(images, load_extractor("random")).double().numpy() for name, images in sets.items()}


@pytest.fixture(scope="module")
def judged(sets, features):
    """metric -> distances with this metric as the judge."""
    reference, extractor = torch.from_numpy(features["reference"]).float(), load_extractor("random")
    rest = {name: sets[name] for name in ("samples", "reconstructions")}
    return {metric: distances_to(reference, extractor, metric, **rest) for metric in get_args(Metric)}


def _kernel(x: np.ndarray, y: np.ndarray) -> float:
    def mean(a, b, same):
        pairs = [(1 + p @ q / len(p)) ** 3 for i, p in enumerate(a) for j, q in enumerate(b) if not (same and i == j)]
        return math.fsum(pairs) / len(pairs)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def _transport(x: np.ndarray, y: np.ndarray) -> float:
    draws = generator("race", "mind", "fd_random")
    y = y[torch.randperm(len(y), generator=draws)[: len(x)].numpy()]
    units = torch.randn(DIRECTIONS, x.shape[1], generator=draws).double().numpy()
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return 3 * x.shape[1] * np.mean([(np.sort(x @ unit) - np.sort(y @ unit)) ** 2 for unit in units])


def test_each_metric_has_the_value_of_an_independent_computation(judged, features, frechet):
    for metric, distance in (("fd", frechet), ("kd", _kernel), ("mind", _transport)):
        found = judged[metric]
        assert found.generation.value == pytest.approx(distance(features["samples"], features["reference"]), rel=1e-5)
        assert found.reconstruction.value == pytest.approx(distance(features["reconstructions"], features["reference"]), rel=1e-5)
        assert found.gap == found.generation.value - found.reconstruction.value


def test_the_judge_decides_only_which_distance_comes_first(judged):
    assert {metric: found.name for metric, found in judged.items()} == {
        "fd": "fd_random", "kd": "kid_random", "mind": "mind_random"
    }  # fmt: skip
    for metric in get_args(Metric):
        assert len({found.by(metric).model_dump_json() for found in judged.values()}) == 1
        assert judged[metric].kernel_generation == judged["kd"].generation.value
        assert metric not in judged[metric].others


def test_racers_are_ranked_by_any_metric_that_all_trials_have(scored, judged):
    trials = [scored(racer, seed, {"random": (1.0, 0.0)}) for racer in ("a", "b") for seed in (0, 1)]
    better = judged["fd"]
    worse = better.model_copy(update={"others": {"mind": better.others["mind"].model_copy(
        update={"generation": better.generation.model_copy(update={"value": 1e9})}
    )}})  # fmt: skip
    for trial, distances in zip(trials, (better, better, worse, worse), strict=True):
        trial.distances["random"] = distances
    ranking = ranking_by(("a", "b"), trials, "random", "mind")
    assert (ranking.racers["a"].place, ranking.racers["b"].place) == ("1", "2")
    assert ranking.racers["b"].value == 1e9
    assert ranking_by(("a", "b"), trials, "random", "kd").racers["b"].value == better.kernel_generation
    trials[0].distances["random"] = better.model_copy(update={"others": {}})
    assert ranking_by(("a", "b"), trials, "random", "mind") is None
