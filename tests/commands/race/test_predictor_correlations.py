"""Rank correlations of predictors over invented autoencoders, compared with scipy."""

import numpy as np
import pytest
import scipy.stats

from smtool.commands.race.predictor_correlations import predictor_correlations, value_of
from smtool.commands.race.result import MeanDistances, Point, SeedsAgreement
from smtool.commands.race.trial import TrialScores

NAMES, SEEDS = [f"a{number}" for number in range(9)], range(3)


@pytest.fixture(scope="module")
def distances() -> dict:
    """extractor -> generation, reconstruction and gap, each (autoencoders, seeds)."""
    rng = np.random.default_rng(0)
    found = {}
    for features in ("random", "squeezenet"):
        reconstruction = 5 + rng.random((9, 1)) + 0.1 * rng.standard_normal((9, 3))
        gap = rng.random((9, 1)) + 0.4 * rng.standard_normal((9, 3))
        found[features] = {"generation": reconstruction + gap, "reconstruction": reconstruction, "gap": gap}
    return found


@pytest.fixture(scope="module")
def points(distances) -> dict[str, Point]:
    flat = np.random.default_rng(1).random(9)
    return {
        name: Point(
            digests=(name,),
            num_latents=8,
            predictors={"psnr": -distances["random"]["generation"].mean(1)[k], "flatness": flat[k]},
            distances={
                features: MeanDistances(**{what: table.mean(1)[k] for what, table in tables.items()})
                for features, tables in distances.items()
            },
        )
        for k, name in enumerate(NAMES)
    }


@pytest.fixture(scope="module")
def trials(distances, scored) -> list[TrialScores]:
    return [
        scored(name, seed, {
            features: (tables["reconstruction"][k, seed], tables["gap"][k, seed]) for features, tables in distances.items()
        })
        for k, name in enumerate(NAMES)
        for seed in SEEDS
    ]


@pytest.mark.parametrize("features", ["random", "squeezenet"])
@pytest.mark.parametrize("what", ["generation", "gap"])
def test_each_predictor_is_correlated_with_the_distances_of_each_extractor(points, trials, distances, features, what):
    found = predictor_correlations(points, trials)[features].predictors
    assert list(found) == ["rfd", "psnr", "flatness"]
    for name, entry in found.items():
        reconstruction = distances[features]["reconstruction"].mean(1)
        known = reconstruction if name == "rfd" else [point.predictors[name] for point in points.values()]
        expected = scipy.stats.spearmanr(known, distances[features][what].mean(1)).statistic
        correlation = getattr(entry, what)
        assert correlation.value == pytest.approx(expected, abs=1e-12)
        assert correlation.low <= correlation.value <= correlation.high
        assert correlation.points == 9


@pytest.mark.parametrize("features", ["random", "squeezenet"])
@pytest.mark.parametrize("what", ["generation", "gap"])
def test_seeds_are_compared_with_the_mean_of_the_others(points, trials, distances, features, what):
    table = distances[features][what]
    expected = np.mean([scipy.stats.spearmanr(table[:, k], np.delete(table, k, axis=1).mean(1)).statistic for k in SEEDS])
    found = predictor_correlations(points, trials)[features].seeds_agree
    assert getattr(found, what) == pytest.approx(expected, abs=1e-12)


def test_seeds_are_not_compared_if_a_racer_failed_in_one_of_them(points, trials):
    agree = predictor_correlations(points, trials[:-1])["random"].seeds_agree
    assert agree == SeedsAgreement(generation=None, gap=None)


def test_the_reconstruction_distance_is_on_the_same_extractor(points, distances):
    for features in ("random", "squeezenet"):
        assert value_of(points["a4"], "rfd", features) == pytest.approx(distances[features]["reconstruction"][4].mean())


def test_two_autoencoders_have_no_rank_correlation(points, trials):
    assert predictor_correlations({name: points[name] for name in NAMES[:2]}, trials) == {}
