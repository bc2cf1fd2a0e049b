"""Published transformers, sampled and converted to checkpoints: a file made from a finished run gives that run's images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from smtool.checkpoints import write_autoencoder
from smtool.commands.inspect.diffusion import checkpoint_rows
from smtool.diffusion import Sampler
from smtool.inference.diffusion_model import read_diffusion, write_diffusion
from smtool.inference.generate import generate
from smtool.inference.published import import_transformer
from smtool.networks.posterior import LatentStats
from smtool.storage import read_metadata
from smtool.tokenizers import load_autoencoder


@pytest.fixture
def repa_file(finished, tmp_path):
    """The finished run's network as REPA would save it."""
    tensors = load_file(finished / "ckpt.safetensors")
    network = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    last = {name: 0 * value for name, value in network.items()}
    torch.save({"ema": network, "model": last, "steps": 8}, tmp_path / "0000008.pt")
    return tmp_path / "0000008.pt"


@pytest.fixture
def autoencoder(studio, finished, tmp_path):
    """The autoencoder of the finished run, with the statistics of its latents."""
    autoencoder = load_autoencoder("runs/tiny")
    autoencoder.stats = LatentStats.from_metadata(read_metadata(finished / "ckpt.safetensors")["stats"])
    write_autoencoder(tmp_path / "ae.safetensors", autoencoder, {})
    return tmp_path / "ae.safetensors"


def _pixels(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("0*.png"))]).astype(int)


def test_a_published_file_gives_the_images_of_the_run_it_was_made_from(finished, repa_file, autoencoder, command, tmp_path):
    asked = ("--num-images", "4", "--sampler", "euler", "--steps", "4", "--seed", "2")
    code, _, err = command("sample", str(finished), "--out", str(tmp_path / "run"), *asked)
    assert code == 0, err
    published = (str(repa_file), "--autoencoder", str(autoencoder), "--heads", "2")
    code, _, err = command("sample", *published, "--out", str(tmp_path / "file"), *asked)
    assert code == 0, err
    assert np.array_equal(_pixels(tmp_path / "file"), _pixels(tmp_path / "run"))
    passport = json.loads((tmp_path / "file" / "samples.json").read_text())
    assert (passport["weights"], passport["step"]) == ("average", None)


def test_as_a_checkpoint_of_smtool_it_needs_no_other_file(studio, repa_file, autoencoder, tmp_path):
    model = import_transformer(repa_file, str(autoencoder), heads=2)
    recipe = model.tables.model_dump(mode="json", exclude_none=True)
    write_diffusion(tmp_path / "ckpt.safetensors", model, recipe=recipe)
    repa_file.unlink()
    autoencoder.unlink()
    again = read_diffusion(tmp_path / "ckpt.safetensors")
    assert again.metadata["source"] == "0000008.pt: REPA-2 blocks of 32/2 for latents of 2x8x8, 3 classes"
    rows = checkpoint_rows(tmp_path / "ckpt.safetensors")
    assert (rows["step"], rows["trained on"]) == ("not known", f"not known; imported from {again.metadata['source']}")
    first, second = (
        next(iter(generate(m, range(2), seed=0, sampler=Sampler(steps=2), labels=[0, 1], batch=2)))[1] for m in (model, again)
    )
    assert torch.equal(first, second)


def test_a_given_scale_takes_precedence_over_the_autoencoders(studio, repa_file, autoencoder):
    assert import_transformer(repa_file, str(autoencoder), heads=2).stats.kind == "channel"
    stats = import_transformer(repa_file, str(autoencoder), scale=0.5, heads=2).stats
    assert (stats.kind, stats.mean.tolist(), stats.std.tolist()) == ("scalar", [0.0], [2.0])


def test_a_file_of_mean_and_std_gives_the_statistics_per_channel(studio, finished, repa_file, command, tmp_path):
    """As LightningDiT stores them: (1, C, 1, 1)."""
    stats = LatentStats.from_metadata(read_metadata(finished / "ckpt.safetensors")["stats"])
    stored = {"mean": stats.mean.view(1, -1, 1, 1), "std": stats.std.view(1, -1, 1, 1)}
    torch.save(stored, tmp_path / "latents_stats.pt")
    found = import_transformer(repa_file, "runs/tiny", scale=tmp_path / "latents_stats.pt", heads=2).stats
    assert found.kind == "channel" and torch.equal(found.mean, stats.mean) and torch.equal(found.std, stats.std)
    torch.save({"mean": stored["mean"]}, tmp_path / "latents_stats.pt")
    arguments = ["sample", str(repa_file), "--autoencoder", "runs/tiny", "--heads", "2", "--scale"]
    code, _, said = command(*arguments, str(tmp_path / "latents_stats.pt"))
    assert (code, "holds mean 1x2x1x1, but mean and std of 2 channels are needed" in said) == (3, True), said
    for text, words in (("there.pt", "neither a number nor a file"), ("0", "expected a number above 0")):
        code, _, said = command(*arguments, text)
        assert (code, f"--scale {text}: {words}" in said) == (2, True), said


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 3, "also pass the autoencoder of its latents: --autoencoder PATH"),
        (["--autoencoder", "runs/tiny", "--heads", "2"], 3, "does not state the scale of its latents"),
        (["--autoencoder", "runs/tiny"], 3, "Pass --heads 1"),
        (["--autoencoder", "nowhere"], 3, "nowhere: no such file, folder or run"),
    ],
)
def test_errors_name_the_missing_option(studio, repa_file, command, options, code, words):
    if "nowhere" in options:
        options = [*options, "--heads", "2"]
    found, _, err = command("sample", str(repa_file), *options)
    assert (found, words in err, "Traceback" in err) == (code, True, False), err


def test_latents_of_other_channels_are_refused(studio, repa_file, command, tmp_path):
    tensors = torch.load(repa_file, weights_only=True)["ema"]
    tensors["x_embedder.proj.weight"] = torch.zeros(32, 4, 2, 2)
    tensors["final_layer.linear.weight"], tensors["final_layer.linear.bias"] = torch.zeros(16, 32), torch.zeros(16)
    torch.save(tensors, tmp_path / "four.pt")
    code, _, err = command("sample", str(tmp_path / "four.pt"), "--autoencoder", "runs/tiny", "--heads", "2", "--scale", "1")
    assert (code, "have 2 channels" in err) == (3, True), err
