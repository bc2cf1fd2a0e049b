"""race.json: a file of an earlier version, the schema, damaged files."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from smtool.commands.race.figures import predictors_figure, seeds_figure
from smtool.commands.race.predictor_correlations import predictor_correlations
from smtool.commands.race.ranking import rankings
from smtool.commands.race.result import PredictorCorrelations, RaceResult, json_schema, read_race
from smtool.commands.race.tables import metrics_table, show
from smtool.commands.race.trial import TrialKey, TrialScores, read_kept
from smtool.errors import CheckpointError
from smtool.report.console import Console

PUBLISHED = Path(__file__).parents[3] / "docs" / "race.schema.json"


@pytest.fixture(scope="module")
def result(written) -> RaceResult:
    return read_race(written.parent)


def test_the_published_schema_is_that_of_this_version():
    assert json.loads(PUBLISHED.read_text()) == json_schema(), (
        "write it again: python -c 'import json; from smtool.commands.race.result import json_schema; "
        "print(json.dumps(json_schema(), indent=1))' > docs/race.schema.json"
    )


def test_what_was_read_is_written_with_the_same_names_and_numbers(result, written, tmp_path):
    result.write(tmp_path / "race.json")
    assert json.loads((tmp_path / "race.json").read_text()) == json.loads(written.read_text())
    assert read_race(tmp_path) == result


def test_keys_that_a_sampler_of_an_older_version_lacks_change_a_trial_only_if_they_are_used(result):
    """Races of both versions can be pooled, and an old race that is resumed is not scored again."""
    key = result.trials[0].cache_key
    assert "epsilon_scale" not in key.sampler
    unused = {"cfg_channels": 0, "epsilon_scale": 1.0, "precision": "fp32"}
    newer = {**key.model_dump(), "sampler": {**key.sampler, **unused}}
    assert TrialKey(**newer) == key
    for precision, same in (("auto", True), ("bf16", False), ("fp16", False)):
        assert (TrialKey(**{**newer, "sampler": {**key.sampler, "precision": precision}}) == key) == same
    newer["sampler"]["epsilon_scale"] = 1.01
    assert TrialKey(**newer) != key


def test_tables_and_sentences_of_an_old_file_have_its_numbers(result, written, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = io.StringIO()
    show(result, Console(file=said))
    assert said.getvalue() == written.with_suffix(".txt").read_text()


def test_rankings_and_correlations_follow_from_trials_and_points(result):
    assert result.rankings == {"random": rankings(result.racers, result.trials, "random")}
    found = predictor_correlations(result.points, result.trials)
    assert {name: one.seeds_agree for name, one in result.predictor_correlations.items()} == {
        name: one.seeds_agree for name, one in found.items()
    }
    assert _numbers(result.predictor_correlations) == pytest.approx(_numbers(found), rel=1e-12)


def _numbers(found: Mapping[str, PredictorCorrelations]) -> dict[tuple[str, str, str, str], float]:
    """The correlations without the predictors' titles, which a file keeps as they were when it was written.

    Processors differ in the last bits of a sum.
    """
    return {
        (features, name, of, key): value
        for features, one in found.items()
        for name, predictor in one.predictors.items()
        for of in ("generation", "gap", "published")
        if (correlation := getattr(predictor, of)) is not None
        for key, value in correlation.model_dump().items()
        if value is not None
    }


def test_an_old_file_is_judged_by_the_frechet_distance_and_has_no_other(result):
    assert (result.metric, result.partial) == ("fd", ())
    assert result.judged_by.startswith("fd_random of 24 images (weights ")
    distances = result.trials[0].distances["random"]
    assert distances.by("fd").generation == distances.generation
    assert distances.by("mind") is None
    assert distances.by("kd").generation.value == distances.kernel_generation
    assert metrics_table(result).columns == ("racer", "fd_random", "kid_random")


def test_figures_show_every_racer_that_did_not_fail_the_best_first(result):
    for axes in seeds_figure(result).axes:
        assert len(axes.lines) == 3 * 4      # interval, mean and seeds of each
    labels = [label.get_text() for label in seeds_figure(result).axes[0].get_yticklabels()]
    assert labels == result.by_generation() == ["plain", "esm", "dsm", "wide"]
    panels = predictors_figure(result).axes
    assert len(panels) == len(result.predictor_correlations["random"].predictors)
    assert {len(axes.lines) for axes in panels} == {3}      # one for each autoencoder; wide and dsm share one


def _of_another_version(race: dict) -> None:
    race["schema"] = "smtool.race/1"


def _without_steps(race: dict) -> None:
    del race["steps"]


def _with_a_strange_key(race: dict) -> None:
    race["cells"][0]["speed"] = 1


def _with_text_for_a_number(race: dict) -> None:
    race["standings"]["random"]["gap"]["pairs"][0]["difference"] = "much"


def _without_trials(race: dict) -> None:
    race["cells"] = []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_of_another_version, r"holds no finished race of version smtool\.race/2 \(found: smtool\.race/1\)"),
        (_without_trials, "holds no finished race"),
        (_without_steps, "is damaged: 1 validation error"),
        (_with_a_strange_key, "is damaged"),
        (_with_text_for_a_number, "is damaged"),
    ],
)
def test_a_damaged_file_is_an_error(damage, words, written, tmp_path):
    race = json.loads(written.read_text())
    damage(race)
    (tmp_path / "race.json").write_text(json.dumps(race))
    with pytest.raises(CheckpointError, match=words):
        read_race(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"schema"'])
def test_a_file_without_a_race_is_an_error(text, tmp_path):
    (tmp_path / "race.json").write_text(text)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_race(tmp_path)


def test_missing_scores_or_scores_of_another_format_are_not_reused(result, tmp_path):
    result.trials[0].write(tmp_path / "whole.json")
    assert read_kept(tmp_path / "whole.json", TrialScores) == result.trials[0]
    (tmp_path / "other.json").write_text('{"facts": {}}')
    assert read_kept(tmp_path / "other.json", TrialScores) is None
    assert read_kept(tmp_path / "missing.json", TrialScores) is None


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff\xfe", b"3", b"[" * 5000, b'{"schema": "smtool.race/2"}'])
def test_a_damaged_result_is_named(tmp_path, text):
    (tmp_path / "race.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"race\.json"):
        read_race(tmp_path)
