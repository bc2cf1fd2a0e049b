"""`smtool train-dit` on the command line: interruptions, ranks, errors. See test_run_diffusion.py for the rest."""

import json
import signal
import time

import pytest
import torch
import warm_process

from smtool.inference.diffusion_model import read_diffusion


@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_an_unbroken_one_bit_for_bit(studio, weights, tmp_path, state_of, rows_of):
    """Labels, EMA and an alignment on; killed at a random moment, then resumed."""
    aligned = ["alignment.kind=irepa", "alignment.teacher=squeezenet", "alignment.depth=1", "steps=60"]
    arguments = ["train-dit", studio.recipe, "--weights-dir", str(weights), *(part for a in aligned for part in ("--set", a))]
    whole = warm_process.start(*arguments, "--out", tmp_path / "whole")
    killed = warm_process.start(*arguments, "--out", tmp_path / "killed")
    goal = tmp_path / "killed" / "checkpoints" / "00000008"
    while killed.poll() is None and not goal.exists():
        time.sleep(0.002)
    time.sleep(0.05)
    assert killed.poll() is None, killed.output()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "DONE").exists()
    again = warm_process.run(*arguments, "--out", tmp_path / "killed")
    assert again.returncode == 0, again.stderr
    _, errors = whole.communicate()
    assert whole.returncode == 0, errors
    expected, found = state_of(tmp_path / "whole"), state_of(tmp_path / "killed")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    steps = [row["step"] for row in rows_of(tmp_path / "killed")]
    assert sorted(set(steps)) == list(range(1, 61))


LIGHTNING = ("model={kind='lightning-dit',size='custom',depth=1,width=16,heads=2,patch=2,qk_norm=true}", "loss.cosine=1")
DIT_DH = ("model={kind='dit-dh',size='custom',depth=1,width=16,heads=2,patch=2,head_depth=1,head_width=24,head_heads=2}",)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [
    pytest.param((), id="sit"),
    pytest.param(("latents.stats=spectral", "latents.flatten=1", "latents.online=true"), id="recoloured"),
    pytest.param(LIGHTNING, id="lightning-dit"),
    pytest.param(DIT_DH, id="dit-dh"),
    pytest.param(("process.kind=flow", "process.input_perturbation=0.5"), id="perturbed"),
])
def test_two_ranks_give_the_weights_and_the_validation_of_one(studio, tmp_path, state_of, assert_same_validation, variant):
    """With a large eps Adam is smooth; with the usual one, the sign of a gradient that is only rounding error moves a weight."""
    changes = ("steps=6", "optimizer.eps=1e-2", "accumulate=2", "validation.num_images=7", *variant)
    said = _on_two_ranks(studio, tmp_path / "two", *changes)
    studio.train(tmp_path / "one", *changes)
    _assert_same_weights(state_of(tmp_path / "two"), state_of(tmp_path / "one"))
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["ranks"] == 2
    assert said.count("done: ") == 1        # only the first rank prints
    assert_same_validation(tmp_path / "two", tmp_path / "one", {6})


@pytest.mark.parametrize("model", [LIGHTNING, DIT_DH], ids=["lightning-dit", "dit-dh"])
def test_other_transformers_resume_bit_for_bit_and_draw_the_same_images(studio, tmp_path, state_of, command, model):
    studio.train(tmp_path / "whole", *model, "steps=4")
    studio.train(tmp_path / "parts", *model, "steps=2")
    studio.train(tmp_path / "parts", *model, "steps=4")
    expected, found = state_of(tmp_path / "whole"), state_of(tmp_path / "parts")
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    for name in ("whole", "parts"):
        drawn = ["--num-images", "2", "--steps", "2", "--out", str(tmp_path / f"{name}-s")]
        code, _, said = command("sample", str(tmp_path / name), *drawn)
        assert code == 0, said
    images = [(tmp_path / f"{name}-s" / "000001.png").read_bytes() for name in ("whole", "parts")]
    assert images[0] == images[1]
    assert model[0].split("'")[1] in command("inspect", str(tmp_path / "whole"))[1]


def test_a_shift_of_the_dimension_is_resolved_from_the_latents_alike_in_training_and_sampling(studio, tmp_path, rows_of, command):
    """runs/tiny has latents of 2 x 8 x 8: s = sqrt(128 / 4096). The word and its number give the same losses and images."""
    for name, shift in (("word", "dimension"), ("number", (2 * 8 * 8 / 4096) ** 0.5)):
        studio.train(tmp_path / name, "process.kind=flow", f"process.shift={shift}", "steps=2")
        assert command("sample", str(tmp_path / name), "--num-images", "2", "--out", str(tmp_path / f"{name}-s"))[0] == 0
    losses = [[row["diffusion"] for row in rows_of(tmp_path / name) if "diffusion" in row] for name in ("word", "number")]
    assert losses[0] == losses[1]
    images = [(tmp_path / f"{name}-s" / "000001.png").read_bytes() for name in ("word", "number")]
    assert images[0] == images[1]
    said = command("inspect", str(tmp_path / "word"))[1]
    assert "times shifted by 0.1768, for the dimension of the latents" in " ".join(said.split())
    assert read_diffusion(tmp_path / "word" / "ckpt.safetensors").tables.process.shift == "dimension"


@pytest.mark.slow
def test_shards_give_the_weights_of_one_rank_and_the_same_files(
    studio, weights, tmp_path, state_of, rows_of, assert_same_validation
):
    """Three steps on one rank, three on two that hold a shard each, three on one again, against nine on one.

    With an average, and an alignment whose projector is sharded too; gradients are clipped by a norm over all shards.
    """
    alignment = ("alignment.kind=irepa", "alignment.teacher=squeezenet", "alignment.depth=1")
    changes = ("optimizer.eps=1e-2", "optimizer.clip=0.2", "accumulate=2", "evaluate_every=3", *alignment)
    studio.train(tmp_path / "one", *changes, "steps=9", weights_dir=weights)
    studio.train(tmp_path / "mixed", *changes, "steps=3", weights_dir=weights)
    sharded = ("steps=6", "parallel.shard_above=1000")
    said = _on_two_ranks(studio, tmp_path / "mixed", *changes, *sharded, "--weights-dir", str(weights))
    assert "the transformer is sharded over 2 ranks" in said
    studio.train(tmp_path / "mixed", *changes, "steps=9", weights_dir=weights)
    _assert_same_weights(state_of(tmp_path / "mixed"), state_of(tmp_path / "one"))
    norms = [[row["transformer_gradient"] for row in rows_of(tmp_path / name) if "diffusion" in row] for name in ("mixed", "one")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert min(norms[1]) > 0.2      # so gradients were clipped
    assert_same_validation(tmp_path / "mixed", tmp_path / "one", {3, 6, 9})


def _on_two_ranks(studio, out, *changes: str) -> str:
    """`train-dit` on two ranks, with --set for each change; returns its output."""
    options = [part for change in changes for part in (("--set", change) if "=" in change else (change,))]
    ended = warm_process.run("train-dit", studio.recipe, "--out", out, *options, ranks=2)
    assert (out / "DONE").exists() and "done: " in ended.stdout, ended.stderr[-2000:]
    return ended.stdout


def _assert_same_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal up to rounding; optimizer states have equal names and shapes."""
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in expected.items()}
    for name in (name for name in expected if not name.startswith("optimizer/")):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=2e-5, msg=name)


def test_a_dry_run_prints_sizes_and_saves_nothing(studio, command):
    code, out, err = command("train-dit", studio.recipe, "--dry-run", "--set", "steps=50")
    assert code == 0, err
    for words in ("50 steps", "latents (2, 8, 8) of 42 images, 8 a step, from", "3 classes", "peak memory", "whole run about"):
        assert words in out


def test_online_writes_no_cache(studio, command, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").symlink_to(studio.folder / "runs" / "tiny")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "classes").symlink_to(studio.folder / "data" / "classes")
    monkeypatch.chdir(tmp_path)
    code, _, err = command("train-dit", studio.recipe, "--online", "--out", "run", "--set", "steps=1")
    assert code == 0, err
    assert (tmp_path / "run" / "ckpt.safetensors").exists()
    assert not (tmp_path / "data" / "latents").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "latents.autoencoder=runs/dsm"], 3, "Train it first: smtool train-ae recipes/dsm.toml"),
        (["--set", "latents.autoencoder=runs/dit"], 3, "holds kind 'diffusion', but an autoencoder is needed"),
        (["--data", "nowhere/at/all"], 3, "nowhere/at/all"),
        (["--data", "photos/photos-train42-val2-32"], 3, "has no classes, but the recipe has a [labels] table"),
        (["--set", "sampler.cfg_scale=2", "--set", "labels="], 2, "guidance needs classes"),
        (["--set", "model.sise=S"], 2, "model.sise: no such key. Did you mean `size`?"),
        (["--set", "alignment.kind=repa", "--set", "alignment.teacher=squeezenet"], 2, "alignment.depth: must be at most the"),
        (["--set", "accumulate=3"], 2, "accumulate: 3 micro-batches do not divide data.batch = 8"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_saved(studio, finished, command, tmp_path, arguments, code, words):
    found, _, err = command("train-dit", studio.recipe, "--out", str(tmp_path / "run"), *arguments)
    assert (found, words in err, "Traceback" in err) == (code, True, False), err
    assert not (tmp_path / "run").exists()
