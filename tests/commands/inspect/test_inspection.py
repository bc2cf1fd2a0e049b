"""Descriptions of checkpoints, prepared data and recipes, and errors for other paths."""

import io
import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from smtool.checkpoints import write_autoencoder
from smtool.commands.inspect.inspection import describe, inspect
from smtool.commands.prepare.images import prepare
from smtool.data import open_images
from smtool.errors import CheckpointError, DataError, RecipeError
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE
from smtool.report.console import Console

SECTION = SDVAE(downsample=4, latent_channels=3, channels=(8, 8, 16), norm_groups=4, blocks_per_level=1)

RECIPE = """
steps = 100
[data]
train = "builtin:dead-leaves"
image_size = 32
batch = 4
[model]
downsample = 8
latent_channels = 4
[optimizer]
[regularizers.kl]
[regularizers.dsm]
block = 4
rows_removed = [0, 4]
[discriminator]
num_layers = 2
start = 50
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in an empty folder, without the user's runs/."""
    monkeypatch.chdir(tmp_path)


def test_our_checkpoint_is_described_by_architecture_shapes_step_statistics_and_digest(tmp_path):
    autoencoder = SECTION.build()
    autoencoder.stats = LatentStats("scalar", torch.tensor([0.5]), torch.tensor([2.0]), count=64, data="abc")
    known = {"step": 1200, "recipe": {"regularizers": {"kl": {}, "dsm": {}}}, "data": "abc", "weights": "average"}
    write_autoencoder(tmp_path / "runs/tiny/ckpt.safetensors", autoencoder, known)
    total = sum(parameter.numel() for parameter in autoencoder.parameters())
    for what in ("runs/tiny/ckpt.safetensors", "runs/tiny", "tiny"):
        rows = describe(what).rows
        assert rows["kind"].startswith("autoencoder, written by smtool")
        assert rows["architecture"] == "sd-vae f4d3, widths 8-8-16, 1 block a level, asymmetric padding, 4 norm groups"
        assert rows["parameters"].startswith(f"{total:,} (encoder ")
        assert rows["latent"] == "3 x 64 x 64 for images of 256 x 256"
        assert (rows["methods"], rows["step"]) == ("kl, dsm", "1,200, average weights")
        assert rows["trained on"] == "images with digest abc"
        assert rows["statistics"] == "scalar, measured on 64 samples\nmean 0.5\nstd 2"
        assert rows["digest"] == autoencoder.digest


def test_weights_that_were_changed_after_writing_are_noticed(tmp_path):
    path = tmp_path / "ckpt.safetensors"
    write_autoencoder(path, SECTION.build(), {})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["decoder.conv_out.bias"] += 1.0
    save_file(tensors, path, metadata)
    assert "its weights were changed later" in describe(str(path)).rows["digest"]


def test_a_diffusers_folder_is_described_with_its_published_statistics(tmp_path):
    AutoencoderKL(norm_num_groups=8, block_out_channels=(8,), scaling_factor=0.5).save_pretrained(tmp_path)
    rows = describe(str(tmp_path)).rows
    assert rows["kind"] == "autoencoder, in the format of diffusers"
    assert rows["latent"] == "4 x 256 x 256 for images of 256 x 256"
    assert rows["statistics"] == "scalar, published\nmean 0\nstd 2"


def test_an_autoencoder_that_diffusers_runs_is_described(tmp_path):
    widths = {"encoder_block_out_channels": (8,) * 3, "decoder_block_out_channels": (8,) * 3}
    tiny = AutoencoderTiny(**widths, num_encoder_blocks=(1,) * 3, num_decoder_blocks=(1,) * 3)
    tiny.save_pretrained(tmp_path / "tiny")
    rows = describe(str(tmp_path / "tiny")).rows
    assert (rows["architecture"], rows["statistics"]) == ("AutoencoderTiny f4, 4 channels", "scalar, published\nmean 0\nstd 1")
    assert rows["parameters"] == f"{sum(parameter.numel() for parameter in tiny.parameters()):,}"


def test_a_tokenizer_without_a_file_is_described(tmp_path):
    rows = describe("pixels").rows
    assert (rows["kind"], rows["latent"]) == ("the pixels themselves as latents", "3 x 256 x 256 for images of 256 x 256")
    assert "parameters" not in rows
    assert describe("control:crop").rows["architecture"].startswith("control f8, 3 channels")


def test_the_error_for_an_unreadable_file_does_not_call_it_missing(tmp_path):
    (tmp_path / "cut.pt").write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match=r"cut\.pt is not a readable file"):
        describe("cut.pt")


def test_another_safetensors_file_is_described_by_its_size(tmp_path):
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(1)}, tmp_path / "x.safetensors", {"kind": json.dumps("training-state")})
    assert describe("x.safetensors").rows == {"kind": "training-state", "tensors": "2, with 7 elements"}


def test_what_it_cannot_name_is_an_error(tmp_path):
    save_file({"a": torch.zeros(2, 3)}, tmp_path / "y.safetensors")
    with pytest.raises(CheckpointError, match=r"y\.safetensors holds no known autoencoder; its tensors are a"):
        describe("y.safetensors")
    save_file({"x_embedder.proj.weight": torch.zeros(2, 3)}, tmp_path / "sit.safetensors")
    assert describe("sit.safetensors").rows["kind"].startswith("diffusion transformer of another tool")


def test_a_recipe_is_described_by_what_it_would_build_and_do(tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE)
    rows = describe("mine.toml").rows
    assert rows["parameters"] == "83,653,863 (encoder 34,163,592, decoder 49,490,179)"
    assert rows["latent"] == "4 x 4 x 4 for images of 32 x 32"
    assert rows["methods"] == "kl, dsm"
    assert rows["losses"].startswith("L1, PatchGAN (")
    assert rows["steps"] == "100, 400 images; 75 of these update the autoencoder, the others the discriminator"
    assert rows["run"] == "runs/mine"


def test_a_bare_name_is_a_recipe_first_and_a_run_after(tmp_path, monkeypatch):
    monkeypatch.setattr("smtool.recipe.catalog.packaged", lambda: tmp_path / "packaged")
    write_autoencoder(tmp_path / "runs/mine/ckpt.safetensors", SECTION.build(), {})
    assert describe("mine").rows["kind"].startswith("autoencoder")
    (tmp_path / "packaged").mkdir()
    (tmp_path / "packaged/mine.toml").write_text(RECIPE)
    assert describe("mine").rows["kind"] == "recipe of `smtool train-ae`"


def test_a_prepared_folder_is_described_by_its_card_and_missing_shards_are_an_error(tmp_path, rng):
    (tmp_path / "faces").mkdir()
    for index in range(12):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "faces" / f"{index:02}.png")
    (tmp_path / "faces/12.png").write_text("no image")
    folder = prepare("faces", out=tmp_path / "prepared", size=32, val_fraction=0.25, max_bad=0.5)
    rows = describe("prepared").rows
    assert rows == describe("prepared/dataset.json").rows
    assert rows["source"].startswith("faces (")
    assert rows["images"] == "9 for training, 3 for validation"
    assert rows["size"] == "32 x 32, png, center crop"
    assert rows["left out"] == "1 not an image of a known format"
    assert rows["digest of train"] == open_images("prepared", "train", image_size=32).digest  # as in checkpoints
    next(folder.glob("val-*.tar")).unlink()
    with pytest.raises(DataError, match=r"val-\d+\.tar"):
        describe("prepared")


def test_it_is_printed_with_every_row(tmp_path):
    write_autoencoder(tmp_path / "ckpt.safetensors", SECTION.build(), {})
    printed = io.StringIO()
    inspect("ckpt.safetensors", console=Console(file=printed))
    assert "ckpt.safetensors" in printed.getvalue()
    for name in describe("ckpt.safetensors").rows:
        assert name in printed.getvalue()


def test_an_unknown_path_is_an_error_that_says_what_would_work(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such file, folder, recipe or run[\s\S]*recipes list"):
        describe("nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"recognizes nothing in this folder[\s\S]*smtool prepare"):
        describe("empty")
    with pytest.raises(RecipeError, match="no such recipe"):
        describe("absent.toml")
