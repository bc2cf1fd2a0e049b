"""`smtool train-ae` on the command line: complete runs, interruptions, ranks, errors."""

import json
import random
import re
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import warm_process
from safetensors.torch import load_file

from smtool import load_autoencoder
from smtool.commands.train import training
from smtool.commands.train.run import Run
from smtool.commands.train.validate import Validator
from smtool.data import open_images
from smtool.devices import one_thread
from smtool.recipe import TrainAE, load
from smtool.report.console import Console
from smtool.report.trackers import Trackers
from smtool.storage import read_metadata, write_tensors

RECIPE = """
steps = {steps}
log_every = 2
evaluate_every = 20
save_every = 4
[data]
train = "{data}"
image_size = 32
batch = 8
[model]
downsample = 4
latent_channels = 2
channels = [4, 4, 8]
norm_groups = 4
blocks_per_level = 1
[optimizer]
lr = 1e-3
warmup = 5
[ema]
decay = 0.9
[discriminator]
num_layers = 2
channels = 4
start = 5
[regularizers.dsm]
[validation]
num_images = 8
grid = 4
"""


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Built-in photographs at 32 px, prepared once."""
    return open_images("builtin:photos", "train", image_size=32, root=tmp_path_factory.mktemp("data")).folder


@pytest.fixture(scope="session")
def recipe(tmp_path_factory, photos) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(RECIPE.format(steps=40, data=photos))
    return path


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def unbroken(recipe, tmp_path_factory) -> Path:
    """A complete run; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs")
    done = warm_process.run("train-ae", str(recipe), "--out", "unbroken", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "unbroken"


@pytest.mark.slow
def test_a_run_writes_all_its_files_and_the_checkpoint_is_self_contained(unbroken, photos):
    names = {path.name for path in unbroken.iterdir() if "tfevents" not in path.name}
    promised = {"recipe.toml", "resolved.toml", "environment.json", "metrics.jsonl", "log.txt", "samples", "checkpoints"}
    assert names == promised | {"ckpt.safetensors", "report.html", "DONE"}
    assert [path.name for path in sorted((unbroken / "checkpoints").iterdir())] == ["00000036", "00000040"]
    metadata = read_metadata(unbroken / "ckpt.safetensors")
    assert (metadata["kind"], metadata["step"], metadata["weights"]) == ("autoencoder", 40, "average")
    assert metadata["recipe"]["regularizers"]["dsm"]["rows_removed"] == [0, 8, 10, 12]
    assert metadata["data"] == open_images(str(photos), "train", image_size=32).digest
    autoencoder = load_autoencoder(unbroken / "ckpt.safetensors")
    assert autoencoder.decode(autoencoder.encode(torch.zeros(1, 3, 32, 32)).mode()).shape == (1, 3, 32, 32)
    average = load_file(unbroken / "checkpoints" / "00000040" / "ema.safetensors")
    assert torch.equal(autoencoder.decoder_last_layer, average["autoencoder/autoencoder.decoder.conv_out.weight"])


@pytest.mark.slow
def test_rows_hold_both_players_and_validation(unbroken, rows_of):
    rows = rows_of(unbroken)
    training = {row["step"]: row for row in rows if "l1" in row}
    assert list(training) == list(range(2, 41, 2))
    assert {"adversarial", "adversarial_factor", "discriminator", "logits_real", "lr_discriminator"} <= set(training[40])
    assert "discriminator" not in training[4]
    validation = {row["step"]: row for row in rows if "val_psnr" in row}
    assert list(validation) == [20, 40]
    assert {"val_ssim", "val_delta", "val_esm_divergence", "val_latent_std"} <= set(validation[40])
    assert validation[40]["val_psnr"] > 8


@pytest.mark.slow
def test_a_run_killed_three_times_equals_an_unbroken_one_bit_for_bit(recipe, unbroken, tmp_path, state_of, rows_of):
    """With GAN, EMA and DSM; the command is repeated after each kill."""
    rng = random.Random(0)
    kills = 0
    while kills < 3:
        process = warm_process.start("train-ae", recipe, "--out", "killed", cwd=tmp_path)
        checkpoints = tmp_path / "killed" / "checkpoints"
        goal = 4 + 8 * kills      # killed at a random moment after this step
        while process.poll() is None and not (checkpoints / f"{goal:08d}").exists():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is not None:
            pytest.fail(f"the run ended before the kill: {process.output()}")
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert not (tmp_path / "killed" / "DONE").exists()
    done = warm_process.run("train-ae", str(recipe), "--out", "killed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected, found = state_of(unbroken), state_of(tmp_path / "killed")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    steps = [row["step"] for row in rows_of(tmp_path / "killed")]
    assert sorted(set(steps)) == list(range(2, 41, 2))


@pytest.mark.slow
def test_two_ranks_give_the_weights_and_the_validation_of_one(recipe, tmp_path, state_of, assert_same_validation):
    """With a large eps Adam is smooth; with the usual one, the sign of a gradient that is only rounding error moves a weight.

    The discriminator, from step 5 on, multiplies differences: from 2e-6 after 4 steps to 5e-5 after 8, on some processors less.
    So six steps, of which the last two are one of each player.
    """
    changes = ["--set", "steps=6", "--set", "optimizer.eps=1e-2", "--set", "validation.num_images=7"]
    two = warm_process.run("train-ae", recipe, "--out", "two", *changes, cwd=tmp_path, ranks=2)
    assert (tmp_path / "two" / "DONE").exists(), two.stderr[-2000:]
    one = warm_process.run("train-ae", str(recipe), "--out", "one", *changes, cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    expected, found = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    for name in (name for name in expected if not name.startswith("optimizer/")):
        tolerance = 2e-4 if "discriminator" in name else 2e-5
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=tolerance, msg=name)
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["ranks"] == 2
    assert two.stdout.count("done: ") == 1        # only the first rank prints
    assert_same_validation(tmp_path / "two", tmp_path / "one", {6})


FAILING = """
import sys
from pathlib import Path
from smtool.commands.train import training
from smtool.commands.train.validate import Validator
from smtool.errors import CheckpointError, SmtoolError
from smtool.recipe import TrainAE, load
from smtool.report.console import Console

share = Validator.share

def failing(self, step):
    if self.ranks.rank == 1:
        raise CheckpointError("the reconstruction of image 3 holds NaN.")
    return share(self, step)

Validator.share = failing
try:
    training.train(load(sys.argv[1], TrainAE, ["steps=1"]), console=Console(quiet=True), out=Path("run"))
except SmtoolError as error:
    print(error.exit_code, error.message)
"""


@pytest.mark.slow
def test_when_one_rank_cannot_validate_the_other_ends_at_once_and_says_why(recipe, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING)
    ended = warm_process.run(tmp_path / "failing.py", recipe, cwd=tmp_path, ranks=2, timeout=60)      # silence: 120 s
    reason = "the reconstruction of image 3 holds NaN"
    assert ended.stdout.splitlines() == [f"8 Rank 0 of 2 stops: rank 1 has ended with an error ({reason}).", f"3 {reason}."]


@pytest.mark.slow
def test_sigterm_saves_after_the_step_and_the_run_can_be_resumed(recipe, unbroken, tmp_path, state_of):
    process = warm_process.start("train-ae", recipe, "--out", "stopped", "--set", "save_every=1000", cwd=tmp_path)
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the run is saved" in errors
    assert "Repeat the command to resume" in errors
    assert (tmp_path / "stopped" / "ckpt.safetensors").exists()
    assert warm_process.run("train-ae", str(recipe), "--out", "stopped", cwd=tmp_path).returncode == 0
    expected, found = state_of(unbroken), state_of(tmp_path / "stopped")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
def test_a_run_interrupted_in_validation_is_already_saved_and_validated_when_resumed(recipe, tmp_path, monkeypatch, rows_of):
    """Twice: in the middle and after the last step."""
    loaded, out = load(str(recipe), TrainAE, ["steps=8", "evaluate_every=4"]), tmp_path / "run"
    look, deadly = Validator.look, {4, 8}

    def once_killed(self: Validator, trackers: Trackers, step: int, rows: Mapping[str, torch.Tensor]) -> dict[str, float]:
        if step in deadly:
            deadly.remove(step)
            raise KeyboardInterrupt
        return look(self, trackers, step, rows)

    monkeypatch.setattr(Validator, "look", once_killed)
    for step in (4, 8):
        with pytest.raises(KeyboardInterrupt):
            training.train(loaded, console=Console(quiet=True), out=out)
        assert read_metadata(out / "ckpt.safetensors")["step"] == step
    training.train(loaded, console=Console(quiet=True), out=out)
    assert (out / "DONE").exists()
    rows = rows_of(out)
    assert [row["step"] for row in rows if "val_psnr" in row] == [4, 8]


def test_a_ctrl_c_before_the_first_step_stops_at_once(recipe, tmp_path):
    def preparing(*asked: object) -> Run:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the signal was put off")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)      # processes of pytest-xdist ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            training.train(load(str(recipe), TrainAE), preparing, console=Console(quiet=True), out=tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_a_finished_run_with_a_cosine_schedule_does_not_offer_to_be_extended(recipe, here, command):
    call = ["train-ae", str(recipe), "--out", "cosine", "--set", "optimizer.schedule=cosine", "--set", "optimizer.warmup=0"]
    short = ["--set", "steps=2", "--set", "evaluate_every=2", "--set", "save_every=2"]
    code, _, said = command(*call, *short)
    assert code == 0, said
    code, shown, _ = command(*call, *short)
    assert (code, "is finished (2 steps). --fresh restarts it." in shown) == (0, True)
    assert command(*call, *short, "--set", "steps=4")[0] == 2


@pytest.mark.slow
def test_a_finished_run_can_be_extended_but_not_changed(recipe, unbroken, here, command):
    shutil.copytree(unbroken, here / "unbroken")
    unbroken = here / "unbroken"
    call = ["train-ae", str(recipe), "--out", "unbroken"]
    code, shown, _ = command(*call)
    assert (code, "is finished (40 steps). --set steps=N continues it, --fresh restarts it." in shown) == (0, True)
    code, _, said = command(*call, "--set", "steps=42")
    assert code == 0, said
    assert read_metadata(unbroken / "ckpt.safetensors")["step"] == 42
    code, _, said = command(*call, "--set", "optimizer.lr=1", "--set", "ema=")
    assert code == 2
    assert "optimizer.lr: 0.001 -> 1.0" in said
    assert "ema.decay: 0.9 -> absent" in said
    assert "--fresh" in said
    code, _, said = command(*call, "--fresh", "--set", "steps=4", "--set", "ema=")
    assert code == 0, said
    assert read_metadata(unbroken / "ckpt.safetensors")["weights"] == "last"


def test_a_dry_run_prints_memory_time_and_parameters_and_saves_nothing(recipe, here, command):
    code, shown, said = command("train-ae", str(recipe), "--dry-run")
    assert code == 0, said
    for words in ("40 steps; dry run", "8 a step", "latents (2, 8, 8)", "discriminator:", "peak memory", "from step 5"):
        assert words in shown
    lines = [line for line in shown.splitlines() if "; predicted " in line]
    assert len(lines) == 2 and all(re.search(r"step \d+ ms.*; predicted \d+ ms \([+-]\d+%\)$", line) for line in lines)
    assert "of this CPU, measured now: matrix products" in shown
    assert not (here / "runs").exists()


def test_a_dry_run_times_each_image_size_and_predicts_the_memory_of_the_largest(recipe, here, command):
    code, shown, said = command(
        "train-ae", str(recipe), "--dry-run", "--set", "data.sizes=[[0,16],[10,32]]", "--set", "regularizers.dsm.block=fit",
        "--set", "discriminator.num_layers=1",
    )
    assert code == 0, said
    assert "16 px from step 0, 32 px from step 10, resized" in shown and "ms at 16 px" in shown
    assert "ms with the discriminator at 16 px, from step 5 on" in shown
    assert "ms with the discriminator at 32 px, from step 10 on" in shown
    code, whole, said = command("train-ae", str(recipe), "--dry-run", "--set", "discriminator.num_layers=1")
    predicted = [next(line for line in text.splitlines() if "activations about" in line).partition("activations")[2]
                 for text in (shown, whole)]
    assert predicted[0] == predicted[1]


def test_a_prepared_set_that_is_smaller_than_a_size_is_refused(recipe, here, command):
    fit = ("--set", "regularizers.dsm.block=fit")
    code, _, said = command("train-ae", str(recipe), "--set", "data.sizes=[[0,16],[10,64]]", *fit)
    assert code == 2 and "64 px is larger than data.image_size = 32 px" in said
    code, _, said = command("train-ae", str(recipe), "--set", "data.sizes=[[0,32],[10,64]]", "--set", "data.image_size=64")
    assert code == 3 and "holds images of 32 px, but 64 px are asked for" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["recipes/dsm.toml", "--set", "regularizers.dsm.rows_removd=[0]"], 2, "Did you mean `rows_removed`?"),
        (["recipes/dsm.toml", "--set", "optimizer.lr=-1"], 2, "must be greater than 0.0, but is -1."),
        (["recipes/dsm.toml", "--set", "data.image_size=16"], 2, 'use block = "fit"'),
        (["recipes/none.toml"], 2, "no such recipe"),
        (["recipes/dsm.toml", "--data", "nowhere/at/all"], 3, "nowhere/at/all"),
        (["recipes/dsm.toml", "--device", "cuda:9"], 2, "not available here"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(here, command, arguments, code, words):
    found, _, said = command("train-ae", *arguments)
    assert found == code, said
    assert words in said
    assert "Traceback" not in said
    assert not (here / "runs").exists()


@pytest.mark.slow
def test_a_diverging_run_has_exit_code_six_and_keeps_its_last_good_checkpoint(recipe, here, command):
    """A huge learning rate after steps with a usual one."""
    call = ["train-ae", str(recipe), "--out", "run"]
    assert command(*call, "--set", "steps=4")[0] == 0
    resolved = here / "run" / "resolved.toml"
    resolved.write_text(resolved.read_text().replace("lr = 0.001", "lr = 1e30"))
    code, _, said = command(*call, "--set", "optimizer.lr=1e30")
    assert code == 6, said
    assert "not finite" in said
    assert "The checkpoint of step 4 is intact" in said
    assert (here / "run" / "FAILED").exists()
    assert all(torch.isfinite(v).all() for v in load_file(here / "run" / "ckpt.safetensors").values())


@pytest.mark.slow
def test_a_full_disk_has_exit_code_seven_and_keeps_the_last_checkpoint(recipe, tmp_path):
    """Files are limited to 200 kB, which is less than the optimizer's state."""
    (tmp_path / "limited.py").write_text(
        "import resource, runpy\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200 << 10, 200 << 10))\n"
        "runpy.run_module('smtool', run_name='__main__')\n"
    )
    wide = ["--set", "model.channels=[16, 16, 32]"]
    done = warm_process.run(tmp_path / "limited.py", "train-ae", recipe, "--out", "run", *wide, cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    assert "no space left on the disk" in done.stderr
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_run_paused_twice_equals_an_unbroken_one(recipe, unbroken, tmp_path, state_of):
    loaded, out = load(str(recipe), TrainAE), tmp_path / "turns"
    with one_thread():      # as in the unbroken run
        for step in (8, 8, 20):      # a step that is already reached changes nothing
            training.train(loaded, console=Console(quiet=True), out=out, pause_at=step)
            assert read_metadata(out / "ckpt.safetensors")["step"] == step
            assert not (out / "DONE").exists()
        training.train(loaded, console=Console(quiet=True), out=out)
    assert (out / "DONE").exists()
    expected, found = state_of(unbroken), state_of(out)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_lost_result_of_a_finished_run_is_written_again(studio, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "ckpt.safetensors").unlink()
    studio.train(tmp_path / "run")
    assert (tmp_path / "run" / "ckpt.safetensors").read_bytes() == (finished / "ckpt.safetensors").read_bytes()


def test_a_run_killed_between_its_last_checkpoint_and_its_result_writes_the_result(studio, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    result = tmp_path / "run" / "ckpt.safetensors"
    write_tensors(result, load_file(result), {**read_metadata(result), "step": 4})
    (tmp_path / "run" / "DONE").unlink()
    studio.train(tmp_path / "run")
    assert result.read_bytes() == (finished / "ckpt.safetensors").read_bytes()
