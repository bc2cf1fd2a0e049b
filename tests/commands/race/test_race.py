"""`smtool race`: complete races, interrupted races, races with a failing racer."""

import io
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import warm_process
from undrawn import leave_out_curves

from smtool import load_autoencoder
from smtool.commands.race.jobs import Place
from smtool.commands.race.judge_again import judge_again
from smtool.commands.race.page import write_report
from smtool.commands.race.partial import found_warnings, planned_warnings
from smtool.commands.race.pool import pool_races
from smtool.commands.race.race import Budget, race
from smtool.commands.race.result import PooledResult, RaceResult, read_race
from smtool.commands.race.workers import Outcome, outcome
from smtool.data import open_images
from smtool.data.batches import to_uint8
from smtool.devices import one_thread
from smtool.errors import CheckpointError, RecipeError, TrainingError
from smtool.features.load import load_extractor
from smtool.metrics.frechet import frechet_distance_of_features
from smtool.recipe.race import load_race
from smtool.report.console import Console
from smtool.storage import write_json, write_tensors

RECIPE = """
seeds = [0, 1]
turn = 2
judge = {{metric = "fd", num_images = 24}}
[data]
train = "{data}"
image_size = 32
[autoencoders]
changes = ["steps=4", "log_every=1", "evaluate_every=4", "data.batch=8", "model.channels=[8, 8, 8]", "model.norm_groups=4",
  "model.blocks_per_level=1", "optimizer.lr=1e-2", "ema.decay=0.5", "validation.num_images=4"]
[transformer]
changes = ["steps=6", "log_every=1", "evaluate_every=6", "data.batch=8", "model.depth=1", "model.width=32", "model.heads=2",
  "sampler.steps=2", "validation.num_images=4"]
[racers.plain]
recipe = "sd-vae"
[racers.dsm]
recipe = "dsm"
[racers.wide]
recipe = "dsm"
transformer = ["latents.embed=true"]
"""
BROKEN = '[racers.broken]\ncheckpoint = "broken.safetensors"\n'
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="session")
def studio(tmp_path_factory) -> Path:
    """A working folder with prepared photographs, two recipes and a broken checkpoint."""
    folder = tmp_path_factory.mktemp("races")
    data = open_images("builtin:photos?train=96&val=24", "train", image_size=32, root=folder / "data").folder
    (folder / "race.toml").write_text(RECIPE.format(data=data))
    (folder / "four.toml").write_text(RECIPE.format(data=data) + BROKEN)
    (folder / "broken.safetensors").write_bytes(b"not a checkpoint")
    return folder


class Here:
    """A worker that runs jobs in this process."""

    def do(self, job) -> Outcome:
        return outcome(job, Place("cpu", None))

    def stop(self) -> None:
        pass

    def end(self) -> None:
        pass


def _race(studio: Path, recipe: str, out: str, *changes: str, budget: Budget = Budget()) -> RaceResult:
    before = os.getcwd()
    os.chdir(studio)
    try:
        with one_thread(), pytest.MonkeyPatch.context() as patch:
            leave_out_curves(patch.setattr)
            loaded = load_race(recipe, changes)
            return race(loaded, out=Path(out), workers=[Here()], budget=budget, console=Console(file=io.StringIO()))
    finally:
        os.chdir(before)


def _command(*arguments: str) -> list[str]:
    return ["race", "race.toml", "--out", "killed", "--jobs", "2", "--device", "cpu", *arguments]


def _found(folder: Path) -> dict:
    """The result without paths and times."""
    result = json.loads((folder / "race.json").read_text())
    return {key: value for key, value in result.items() if key not in {"costs", "images"}}


@pytest.fixture(scope="session")
def unbroken(studio) -> Path:
    _race(studio, "race.toml", "unbroken")
    return studio / "unbroken"


@pytest.mark.slow
def test_a_race_trains_scores_and_ranks_every_racer_with_every_seed(unbroken):
    result = read_race(unbroken)
    assert [(trial.racer, trial.seed) for trial in result.trials] == [
        (racer, seed) for racer in ("plain", "dsm", "wide") for seed in (0, 1)
    ]
    assert {trial.step for trial in result.trials} == {6}
    assert result.tokens == 16
    assert len(result.rankings["random"].generation.pairs) == 3
    for trial in result.trials:
        distances = trial.distances["random"]
        assert distances.gap == pytest.approx(distances.generation.value - distances.reconstruction.value)
        assert (trial.num_images, trial.num_reference) == (24, 72)
        assert (unbroken / "cells" / f"{trial.racer}-seed{trial.seed}.png").is_file()
    assert (unbroken / "report.html").is_file()


@pytest.mark.slow
def test_reconstructions_are_compared_with_other_images(studio, unbroken):
    result = read_race(unbroken)
    autoencoder = load_autoencoder(unbroken / "autoencoders" / "dsm-seed1").eval()
    images = open_images(result.images.train, "train", image_size=32).read(range(96)).images
    extractor = load_extractor("random")
    with torch.no_grad(), one_thread():
        decoded = to_uint8(autoencoder.decode(autoencoder.encode(images[:24]).mode()))
    expected = frechet_distance_of_features(extractor(decoded), extractor(to_uint8(images[24:])))
    (trial,) = (trial for trial in result.trials if (trial.racer, trial.seed) == ("dsm", 1))
    assert trial.distances["random"].reconstruction.value == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_racers_with_one_autoencoder_share_it_and_seeds_differ(unbroken):
    assert sorted(path.name for path in (unbroken / "autoencoders").iterdir()) == [
        "dsm-seed0", "dsm-seed1", "plain-seed0", "plain-seed1",
    ]  # fmt: skip
    result = read_race(unbroken)
    trials = {(trial.racer, trial.seed): trial for trial in result.trials}
    assert trials["dsm", 0].autoencoder == trials["wide", 0].autoencoder == "dsm-seed0"
    assert trials["dsm", 0].cache_key == trials["wide", 0].cache_key      # the same recipe and seed, so the same weights
    assert trials["dsm", 0].cache_key.autoencoder != trials["dsm", 1].cache_key.autoencoder
    assert set(result.points) == {"plain", "dsm"}


@pytest.mark.draws
@pytest.mark.slow
def test_a_finished_race_trains_nothing_and_prints_the_same(studio, unbroken):
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("ckpt.safetensors")}
    expected = _found(unbroken)
    _race(studio, "race.toml", "unbroken")
    assert {path: path.stat().st_mtime_ns for path in unbroken.rglob("ckpt.safetensors")} == before
    assert _found(unbroken) == expected


@pytest.mark.draws
@pytest.mark.slow
def test_the_page_can_be_written_again_from_race_json(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "again")
    result = RaceResult.model_validate_json((unbroken / "race.json").read_text())
    for path in write_report(result, tmp_path / "again"):
        assert path.read_bytes() == (unbroken / path.relative_to(tmp_path / "again")).read_bytes()


@pytest.mark.slow
def test_a_race_of_processes_killed_and_stopped_gives_the_same_table(studio, unbroken):
    for what, number in (("autoencoders/dsm-seed0", signal.SIGKILL), ("transformers/plain-seed0", signal.SIGTERM)):
        command = _command("--set", "judge.predictors=false")
        process = warm_process.start(*command, cwd=studio, env=ENVIRONMENT)
        ckpt, until = studio / "killed" / what / "ckpt.safetensors", time.monotonic() + 120
        while not ckpt.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=120) == (130 if number == signal.SIGTERM else -number)
        assert not (studio / "killed" / "race.json").exists()
    _race(studio, "race.toml", "killed")
    assert _found(studio / "killed") == _found(unbroken)


@pytest.mark.slow
def test_a_failing_racer_does_not_stop_the_others_and_its_error_is_raised(studio, unbroken):
    with pytest.raises(CheckpointError, match=r"broken failed: broken\.safetensors is not a readable safetensors file"):
        _race(studio, "four.toml", "four", "turn=4", "seeds=[0]", "judge.predictors=false")
    result = read_race(studio / "four")
    assert {trial.racer for trial in result.trials} == {"plain", "dsm", "wide"}
    assert result.broken["broken"].kind == "CheckpointError"
    expected = {(trial.racer, trial.seed): trial.distances for trial in read_race(unbroken).trials}
    assert all(trial.distances == expected[trial.racer, trial.seed] for trial in result.trials)
    assert "not a readable safetensors file" in (studio / "four" / "report.html").read_text()


@pytest.mark.slow
def test_the_error_of_a_diverging_racer_is_raised_after_the_others_are_done(studio):
    diverging = "racers.plain.changes=['regularizers.kl.weight=1e38']"
    with pytest.raises(TrainingError, match=r"plain-seed0 failed: Step \d: .* not finite"):
        _race(studio, "race.toml", "diverged", diverging, "seeds=[0]", "judge.predictors=false")
    result = read_race(studio / "diverged")
    assert {trial.racer for trial in result.trials} == {"dsm", "wide"}
    assert set(result.broken) == {"plain-seed0"}


@pytest.mark.slow
def test_a_budget_ends_all_runs_at_the_same_step_and_can_be_extended(studio):
    little = ("seeds=[0]", "judge.predictors=false")
    for budget, step in ((Budget(seconds=0), 2), (Budget(steps=4), 4)):      # the first turn is always run
        result = _race(studio, "race.toml", "budget", *little, budget=budget)
        assert {trial.step for trial in result.trials} == {step} == {result.step}


@pytest.fixture(scope="session")
def again(studio, unbroken) -> Path:
    """The race, judged again by a command."""
    changes = ("--set", "judge.metric=mind", "--set", "judge.num_images=20")
    arguments = ("unbroken", *changes, "--out", "again", "--jobs", "1", "--device", "cpu")
    warm_process.run("race", *arguments, cwd=studio, env=ENVIRONMENT).check_returncode()
    return studio / "again"


@pytest.mark.slow
def test_a_finished_race_can_be_judged_again_without_training(unbroken, again):
    before, after = read_race(unbroken), read_race(again)
    assert (before.metric, after.metric) == ("fd", "mind")
    assert not (again / "transformers").exists()
    assert (again / "report.html").is_file()
    for old, new in zip(before.trials, after.trials, strict=True):
        scores = new.distances["random"]
        assert (scores.name, new.num_images) == ("mind_random", 20)
        assert scores.gap == scores.generation.value - scores.reconstruction.value
        assert scores.generation != old.distances["random"].others["mind"].generation
        assert (new.cache_key.transformer, new.psnr) == (old.cache_key.transformer, old.psnr)
    means = {name: mean.value for name, mean in after.rankings["random"].generation.racers.items()}
    assert means["dsm"] == pytest.approx(
        sum(trial.distances["random"].generation.value for trial in after.trials_of("dsm")) / 2, rel=1e-12
    )
    assert {name: point.predictors for name, point in after.points.items()} == {
        name: point.predictors for name, point in before.points.items()
    }
    assert after.points["dsm"].distances["random"].generation == pytest.approx(means["dsm"])


@pytest.mark.slow
def test_distances_in_race_json_need_no_samples(studio, unbroken):
    shutil.copytree(unbroken, studio / "only", ignore=shutil.ignore_patterns("transformers", "autoencoders"))
    stored, back = (
        judge_again(studio / where, [f"judge.metric={metric}"], console=Console(quiet=True), out=studio / out, workers=[])
        for where, metric, out in (("only", "mind", "only-mind"), ("only-mind", "fd", "only-fd"))
    )
    before = read_race(unbroken)
    assert not (studio / "only-mind" / "report.html").exists()
    assert read_race(studio / "only-mind") == stored
    for old, new in zip(before.trials, stored.trials, strict=True):
        assert new.distances["random"].generation == old.distances["random"].others["mind"].generation
        assert new.distances["random"].others["fd"].generation == old.distances["random"].generation
    assert stored.metric == "mind"
    assert back.rankings == before.rankings      # back to the first judge
    assert {name: point.distances for name, point in back.points.items()} == {
        name: point.distances for name, point in before.points.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["race.toml", "--set", "judge.metric=kd"], r"unbroken holds a race judged by fd_random of 24 images"),
        (["race.toml", "--set", "judge.metric=fid"], r"judge.metric: .*'fd', 'kd' or 'mind'"),
        (["unbroken", "--set", "seeds=[0]"], r"--set seeds=\[0\]: of a finished race, only the judge can be changed\."),
        (["unbroken", "--set", "judge.metric=kd"], r"unbroken keeps its judge\."),
        (["unbroken", "again", "--set", "judge.metric=kd"], r"judges one finished race again, but several are given\."),
        (["again", "--set", "judge.metric=fid"], r"again.race\.json: 1 problem\s+judge.metric: .*'fd', 'kd' or 'mind'"),
        (["unbroken", "again"], r"cannot be pooled: one was judged by fd_random of 24 .*, the other by mind_random of 20 "),
    ],
)
def test_a_finished_race_keeps_its_judge(studio, unbroken, again, command, monkeypatch, arguments, words):
    monkeypatch.chdir(studio)
    before = (unbroken / "race.json").read_bytes()
    found, _, said = command("race", *arguments, "--out", "unbroken", "--device", "cpu", "--jobs", "1")
    assert (found, bool(re.search(words, said))) == (2, True), said
    assert (unbroken / "race.json").read_bytes() == before


@pytest.mark.slow
def test_a_transformer_that_is_missing_or_was_trained_on_is_not_judged_again(studio, unbroken, again):
    shutil.copytree(unbroken, studio / "longer")
    result = json.loads((studio / "longer" / "race.json").read_text())
    result["cells"][0]["facts"]["transformer"] = "another"
    write_json(studio / "longer" / "race.json", result)
    with pytest.raises(CheckpointError, match=r"plain-seed0 is not the transformer that .*race\.json scored"):
        judge_again(studio / "longer", ["judge.num_images=12"], console=Console(quiet=True), out=studio / "new", workers=[Here()])
    with pytest.raises(CheckpointError, match=r"again.transformers.plain-seed0.ckpt\.safetensors"):      # judged without its runs
        judge_again(studio / "again", ["judge.num_images=12"], console=Console(quiet=True), out=studio / "new", workers=[Here()])


def _pooled(*folders: Path, out: Path | None = None) -> PooledResult:
    return pool_races([str(folder) for folder in folders], console=Console(file=io.StringIO()), out=out)


@pytest.mark.draws
@pytest.mark.slow
def test_races_are_pooled_over_all_their_autoencoders(studio, unbroken):
    other = json.loads((unbroken / "race.json").read_text())
    other["points"]["dsm"]["digests"] = ["another"]
    for cell in other["cells"]:
        if cell["racer"] == "dsm":
            cell["facts"]["autoencoder"] = "another"
            cell["distances"]["random"]["generation"]["value"] += 1e6
    write_json(studio / "other" / "race.json", other)
    pooled = _pooled(unbroken, studio / "other", out=studio / "pool")
    assert set(pooled.points) == {"plain", "dsm", "other/dsm"}      # plain has the same weights in both
    assert pooled.racers == ("plain", "dsm", "other/dsm")           # and wide those of dsm
    predictors = pooled.predictor_correlations["random"].predictors
    assert {"rfd", "psnr", "viv", "ifd_random", "kappa", "delta"} <= set(predictors)
    assert pooled.by_generation()[-1] == "other/dsm"
    assert {"dsm beats other/dsm in 2 of 2 seeds", "plain beats other/dsm in 2 of 2 seeds"} <= {
        pair.sentence for pair in pooled.rankings["random"].generation.pairs
    }
    assert PooledResult.model_validate_json((studio / "pool" / "pooled.json").read_text()) == pooled
    assert "one seed with the mean of the others" in (studio / "pool" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": [0]}, r"are not comparable:\n  seeds: \[0, 1\] and \[0\]"), ({"steps": 9}, r"comparable:\n  steps: 6 and 9"),
        ({"schema": "smtool.race/1"}, r"holds no finished race of version smtool.race/2 \(found: smtool.race/1\)"),
    ],
)
def test_only_comparable_races_are_pooled(studio, unbroken, change, words):
    write_json(studio / "fewer" / "race.json", json.loads((unbroken / "race.json").read_text()) | change)
    with pytest.raises((RecipeError, CheckpointError), match=words):
        _pooled(unbroken, studio / "fewer")
    with pytest.raises(RecipeError, match="2 autoencoders are too few"):
        _pooled(unbroken)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["race.toml", "--budget", "soon"], "expected steps such as 2000, or a time such as 90s, 10m or 1h"),
        (["dsm"], "dsm is a recipe of train-ae"),
        (["broken.safetensors", "nothing"], "data.train is not given"),
    ],
)
def test_invalid_arguments_are_errors_of_one_sentence(studio, command, monkeypatch, arguments, words):
    monkeypatch.chdir(studio)
    code, _, said = command("race", *arguments, "--device", "cpu")
    assert code == 2
    assert words in said


def test_a_judge_that_a_racer_learned_from_is_named(tmp_path):
    def trained(racer: str, seed: int, teacher: list[str], of_autoencoder: list[str]) -> tuple[str, Path]:
        path = tmp_path / f"{racer}-{seed}.safetensors"
        metadata = {"learned_from": teacher, "autoencoder": {"learned_from": of_autoencoder}}
        write_tensors(path, {"x": torch.zeros(1)}, metadata)
        return racer, path

    checkpoints = [
        *(trained("aligned", seed, ["dinov2-s"], []) for seed in (0, 1)),
        trained("lpips", 0, [], ["squeezenet"]),
        trained("plain", 0, [], []),
        ("absent", tmp_path / "absent.safetensors"),
    ]
    assert found_warnings(checkpoints, ("dinov2", "squeezenet", "random")) == [
        "aligned: dinov2-s was this transformer's teacher: rank by another network.",
        "lpips: squeezenet was in the autoencoder's loss: rank by another network.",
    ]


def test_a_judge_that_a_racer_will_learn_from_is_named_before_it_is_trained(studio):
    changes = ["racers.plain.changes=['perceptual.net=\"squeeze\"']", "racers.broken={checkpoint='broken.safetensors'}"]
    _, entries = load_race(str(studio / "race.toml"), changes)
    assert planned_warnings(entries, ("squeezenet", "random")) == [
        "plain: squeezenet is in the autoencoder's loss: rank by another network."
    ]
    assert planned_warnings(entries, ("random",)) == []
