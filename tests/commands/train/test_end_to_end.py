"""`smtool train-dit` with [end_to_end]: files, resuming, ranks, other commands, errors."""

import json
import os
from pathlib import Path

import pytest
import torch
import warm_process
from safetensors.torch import load_file, save_file

from smtool import load_autoencoder
from smtool.errors import CheckpointError
from smtool.inference.diffusion_model import read_diffusion
from smtool.networks.discriminator import PatchGAN
from smtool.randomness import initializing
from smtool.storage import read_metadata

ALIGNED = ("alignment={kind='repa',teacher='squeezenet',depth=1,hidden=8}",)
JOINT = (*ALIGNED, "end_to_end.validation=data/classes", "end_to_end.regularizers.kl={}", "save_every=2")
GAN = ("end_to_end.discriminator={init='gan.safetensors',num_layers=2,channels=4}",)


@pytest.fixture
def joint(studio):
    """The studio, with the weights of a discriminator in its folder."""
    if not Path("gan.safetensors").exists():
        with initializing("gan"):
            network = PatchGAN(num_layers=2, channels=4).build()
        save_file({f"discriminator/{name}": value for name, value in network.state_dict().items()}, "gan.safetensors")
    return studio


@pytest.fixture(scope="module")
def done(_studio, weights, tmp_path_factory):
    """A finished run with all players; tests must not change it."""
    before = os.getcwd()
    os.chdir(_studio.folder)
    try:
        with initializing("gan"):
            network = PatchGAN(num_layers=2, channels=4).build()
        save_file({f"discriminator/{name}": value for name, value in network.state_dict().items()}, "gan.safetensors")
        return _studio.train(tmp_path_factory.mktemp("joint") / "run", *JOINT, *GAN, "steps=4", weights_dir=weights)
    finally:
        os.chdir(before)


def everything(run: Path, state_of) -> dict[str, torch.Tensor]:
    return state_of(run) | {f"ae/{name}": value for name, value in load_file(run / "autoencoder.safetensors").items()}


def test_a_run_writes_an_ordinary_autoencoder_and_an_ordinary_transformer(joint, done, rows_of):
    started = load_autoencoder("runs/tiny")
    alone, model = load_autoencoder(done / "autoencoder.safetensors"), read_diffusion(done / "ckpt.safetensors")
    assert alone.digest == model.autoencoder.digest == read_metadata(done / "autoencoder.safetensors")["digest"] != started.digest
    assert set(alone.learned_from) == set(model.autoencoder.learned_from) == {"squeezenet"}
    norm = load_file(sorted((done / "checkpoints").iterdir())[-1] / "ema.safetensors")
    expected = norm["transformer/latent_norm.running_mean"], (norm["transformer/latent_norm.running_var"] + 1e-4).sqrt()
    for stats in (alone.stats, model.stats):
        assert stats.kind == "channel" and torch.allclose(stats.mean, expected[0]) and torch.allclose(stats.std, expected[1])
    assert alone.recipe["data"]["train"] == "data/classes" and alone.recipe["regularizers"]["kl"]["weight"] == 1e-6
    rows = [row for row in rows_of(done) if "diffusion" in row]
    terms = {"l1", "kl", "adversarial", "latent_alignment", "discriminator", "diffusion", "alignment", "band1"}
    assert len(rows) == 4 and all(terms <= row.keys() for row in rows)
    assert {"lr_autoencoder", "lr_discriminator", "lr_transformer"} <= rows[0].keys()
    validated = rows_of(done)[-1]
    assert {"val_psnr", "val_ssim", "val_latent_std", "val_fd_random"} <= validated.keys()
    found = json.loads((done / "comparison.json").read_text())
    assert found["original"] == "runs/tiny" and found["drift"] > 0
    page = (done / "report.html").read_text()
    assert "an autoencoder and a transformer, trained together" in page and "Before and after" in page


def test_every_command_takes_both_results(joint, done, command, tmp_path):
    ae, ckpt = str(done / "autoencoder.safetensors"), str(done / "ckpt.safetensors")
    few = ["--data", "data/classes", "--num-images", "24"]
    for arguments in (
        ["sample", str(done), "--num-images", "2", "--steps", "2", "--out", str(tmp_path / "drawn")],
        ["eval", ckpt, "--features", "random", "--num-images", "12", "--steps", "2"],
        ["eval", ae, "--psnr", "--data", "data/classes"],
        ["spectrum", ae, "runs/tiny", *few],
        ["export", ae, "--to", "diffusers", "--out", str(tmp_path / "exported")],
        ["prepare", "data/classes", "--latents", ae, "--out", str(tmp_path / "latents")],
    ):
        code, _, said = command(*arguments)
        assert code == 0, (arguments, said)
    code, said, _ = command("inspect", ckpt)
    assert code == 0 and "running statistics of BatchNorm" in said
    assert command("inspect", ae)[0] == 0


def test_a_transformer_alone_trains_on_the_new_autoencoder_later(joint, done, tmp_path):
    run = joint.train(tmp_path / "later", f"latents.autoencoder='{done / 'autoencoder.safetensors'}'", "steps=2")
    expected = load_autoencoder(done / "autoencoder.safetensors").digest
    assert read_diffusion(run / "ckpt.safetensors").autoencoder.digest == expected


@pytest.mark.parametrize("more", [(), GAN], ids=["two-players", "three-players"])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(joint, done, weights, tmp_path, state_of, more):
    whole = joint.train(tmp_path / "whole", *JOINT, "steps=4", weights_dir=weights) if not more else done
    joint.train(tmp_path / "parts", *JOINT, *more, "steps=2", weights_dir=weights)
    joint.train(tmp_path / "parts", *JOINT, *more, "steps=4", weights_dir=weights)
    expected, found = everything(whole, state_of), everything(tmp_path / "parts", state_of)
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    assert "model/transformer/latent_norm.running_var" in found
    assert any(name.startswith("model/discriminator/") for name in found) == bool(more)


def test_the_running_statistics_start_from_those_of_the_latents(joint, weights, tmp_path, state_of):
    """With a momentum of almost 0 they stay: mean and variance over all images and mirrored images, of sampled latents."""
    run = joint.train(tmp_path / "run", *JOINT, "end_to_end.momentum=1e-9", "steps=1", weights_dir=weights)
    cached = read_diffusion(joint.train(tmp_path / "alone", "steps=1", "latents.dtype=fp32") / "ckpt.safetensors").stats
    found = state_of(run)
    torch.testing.assert_close(found["model/transformer/latent_norm.running_mean"], cached.mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["model/transformer/latent_norm.running_var"], cached.std**2, rtol=1e-4, atol=0)


def test_a_dry_run_names_all_players(joint, weights, command):
    changes = [part for change in (*JOINT, *GAN, "steps=50") for part in ("--set", change)]
    code, out, err = command("train-dit", joint.recipe, "--dry-run", "--weights-dir", str(weights), *changes)
    assert code == 0, err
    for words in ("50 steps", "autoencoder: ", "discriminator: ", "transformer: ", "trains together", "whole run about"):
        assert words in out


def test_a_run_is_not_resumed_with_another_autoencoder(joint, weights, tmp_path):
    joint.write_autoencoder(tmp_path / "ae.safetensors", 5)
    changes = (*JOINT, f"latents.autoencoder='{tmp_path / 'ae.safetensors'}'")
    joint.train(tmp_path / "run", *changes, "steps=2", weights_dir=weights)
    joint.write_autoencoder(tmp_path / "ae.safetensors", 6)
    with pytest.raises(CheckpointError, match=r"run was started from .*ae\.safetensors with another digest"):
        joint.train(tmp_path / "run", *changes, "steps=4", weights_dir=weights)


@pytest.mark.slow
def test_two_ranks_give_the_weights_and_the_validation_of_one(joint, weights, tmp_path, state_of, assert_same_validation):
    """With a large eps Adam is smooth; with the usual one, the sign of a gradient that is only rounding error moves a weight.

    After one step weights differ by 2e-7 at most; each further step of the three players multiplies that.
    """
    changes = (*JOINT, *GAN, "steps=2", "optimizer.eps=1e-2")
    one = joint.train(tmp_path / "one", *changes, weights_dir=weights)
    options = [part for change in changes for part in ("--set", change)]
    places = ["--out", tmp_path / "two", "--weights-dir", weights]
    ended = warm_process.run("train-dit", joint.recipe, *places, *options, ranks=2)
    assert (tmp_path / "two" / "DONE").exists(), ended.stderr[-2000:]
    found, expected = everything(tmp_path / "two", state_of), everything(one, state_of)
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in expected.items()}
    for name in (name for name in expected if not name.startswith("optimizer/")):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5, msg=name)
    assert_same_validation(tmp_path / "two", one, {2})


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (["alignment="], 2, "end_to_end: needs an [alignment] table"),
        (["latents.stats=scalar"], 2, 'latents.stats: must be "channel" with [end_to_end]'),
        (["latents.precision=bf16"], 2, "latents.precision: has no effect with [end_to_end]"),
        (["latents.embed=false"], 2, "latents.embed: must be true with [end_to_end]"),
        (["warmup={steps=2}"], 2, "warmup: cannot be used with [end_to_end]"),
        (["channel_prefix={lengths=[1,2]}"], 2, "channel_prefix: cannot be used with [end_to_end]"),
        (["loss.weights=entropy"], 2, 'loss.weights: cannot be "entropy" with [end_to_end]'),
        (["parallel.shard_above=9"], 2, "parallel.shard_above: has no effect with [end_to_end]"),
        (["end_to_end.weight=1"], 2, "end_to_end.weight: no such key."),
        (["end_to_end.alignment_weight=0"], 2, "end_to_end.alignment_weight: must be greater than 0"),
        (["end_to_end.reconstruction.loss=velocity"], 2, 'end_to_end.reconstruction.loss: must be "l1" or "l2"'),
        (["end_to_end.regularizers.eq_vae={}"], 2, "end_to_end.regularizers.eq_vae.prior: must be 0"),
        (["end_to_end.discriminator={}"], 2, "end_to_end.discriminator.init: is required, but missing."),
        (["end_to_end.discriminator={init='nowhere'}"], 3, "discriminator.init: nowhere is no file and no run"),
        (["end_to_end.discriminator={init='gan.safetensors'}"], 3, "Set num_layers = 2 and channels = 4 in [discriminator]."),
        (["end_to_end.discriminator={init='gan.safetensors',num_layers=4}"], 2, "end_to_end.discriminator.num_layers: the small"),
        (["end_to_end.perceptual={net='vgg'}"], 4, "vgg16"),
        (["latents.autoencoder=pixels"], 3, "[end_to_end] needs an autoencoder that can be trained: pixels is"),
        (["latents.autoencoder=dct:2x4"], 3, "which `train-ae` cannot train"),
        (["latents.autoencoder=runs/none"], 3, "runs/none"),
        (["latents.autoencoder=runs/dsm"], 3, "Train it first: smtool train-ae recipes/dsm.toml"),
        (["data.train=caches/latents"], 3, "caches/latents"),
        (["sampler.cfg_scale=2", "sampler.cfg_channels=3"], 2, "sampler.cfg_channels: is 3, but the latents have 2 channels"),
        (["loss.weights=[1,2,3]"], 2, "loss.weights has 3 numbers, but latents of runs/tiny have 2 channels"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_saved(joint, done, command, weights, tmp_path, changes, code, words):
    if "caches" in changes[0] and not Path("caches").exists():
        assert command("prepare", "data/classes", "--latents", "runs/tiny", "--out", "caches/latents")[0] == 0
    options = [part for change in (*JOINT, *changes) for part in ("--set", change)]
    found, _, err = command("train-dit", joint.recipe, "--out", str(tmp_path / "run"), "--weights-dir", str(weights), *options)
    assert (found, words in err, "Traceback" in err) == (code, True, False), err
    assert not (tmp_path / "run").exists()


def test_an_autoencoder_that_only_diffusers_runs_is_refused(joint, command, weights, published, tmp_path):
    published("Wan").save_pretrained(tmp_path / "wan")
    options = [part for change in (*JOINT, f"latents.autoencoder='{tmp_path / 'wan'}'") for part in ("--set", change)]
    code, _, err = command("train-dit", joint.recipe, "--out", str(tmp_path / "run"), "--weights-dir", str(weights), *options)
    assert code == 3 and "which `train-ae` cannot train" in err


def test_a_race_refuses_a_transformer_that_trains_its_autoencoder(joint, command, tmp_path):
    text = Path(joint.recipe).read_text() + (
        "[alignment]\nkind = 'repa'\nteacher = 'squeezenet'\ndepth = 1\n[end_to_end]\n"
    )
    (tmp_path / "joint.toml").write_text(text)
    (tmp_path / "race.toml").write_text(f"""
[data]
train = "data/classes"
image_size = 32
[transformer]
recipe = "{tmp_path / 'joint.toml'}"
[racers.one]
checkpoint = "runs/tiny"
[racers.two]
checkpoint = "specimen:plain"
""")
    code, _, err = command("race", str(tmp_path / "race.toml"), "--out", str(tmp_path / "race"))
    assert code == 2 and "has an [end_to_end] table" in err, err
