"""Rank correlations of predictors over invented autoencoders, compared with scipy."""

import numpy as np
import pytest
import scipy.stats

from smtool.commands.race.predictor_correlations import predictor_correlations, published, title, value_of
from smtool.commands.race.predictor_values import values_table
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


def _with_viv(points, number_of):
    """The points with a VIV; number_of: position -> number of latents."""
    return {
        name: point.model_copy(update={"num_latents": number_of(k), "predictors": {**point.predictors, "viv": 0.1 + 0.01 * k}})
        for k, (name, point) in enumerate(points.items())
    }


def test_viv_is_compared_at_equal_numbers_of_latents_only(points, trials):
    equal = predictor_correlations(_with_viv(points, lambda k: 7200), trials)["random"].predictors
    assert equal["viv"].title == "VIV, our reading, N = 7,200"
    assert equal["viv"].generation.points == 9
    unequal = predictor_correlations(_with_viv(points, lambda k: 7200 if k else 3600), trials)["random"].predictors
    assert list(unequal) == ["rfd", "psnr", "flatness"]


def test_the_linear_probe_has_its_published_correlation():
    """-.82 over 22 autoencoders, as released-code.md states (by scipy over the published table)."""
    found = published("linear_probe")
    assert (round(found.value, 2), found.points) == (-0.82, 22)
    assert published("uniformity") is None
    assert published("lds_paper") is None


def test_the_two_readings_of_lds_have_unlike_titles():
    assert title("lds") == "LDS (d >= 6)"
    assert title("lds_paper") == "LDS (r = H/2)"


def test_values_are_shown_with_the_number_of_latents(points, trials, ranked):
    result = ranked({"a": [1.0, 2.0]})
    equal = values_table(result.model_copy(update={"points": _with_viv(points, lambda k: 7200)}))
    assert equal.columns == ("predictor", *NAMES)
    assert [row[0] for row in equal.rows] == ["PSNR", "spectral flatness", "VIV, our reading, N = 7,200"]
    assert equal.rows[2][1:4] == ("0.1", "0.11", "0.12")
    mixed = {**_with_viv(points, lambda k: 7200 if k else 3600), "other": points["a0"]}
    unequal = values_table(result.model_copy(update={"points": mixed}))
    assert unequal.rows[2][0] == "VIV, our reading, N = 8, 3,600, 7,200"
    assert unequal.rows[2][1:3] == ("0.1 (N = 3,600)", "0.11 (N = 7,200)")
    assert unequal.rows[2][-1] == "-"
    assert "values of unequal N are not comparable" in unequal.note
    assert "unequal" not in equal.note
