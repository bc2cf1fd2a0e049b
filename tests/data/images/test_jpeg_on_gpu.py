"""Decoding of prepared JPEGs by torchvision, here on the CPU, against Pillow; and what is refused before training starts."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smtool.commands.train import run_folder
from smtool.commands.train.run_autoencoder import autoencoder_run
from smtool.commands.train.run_folder import RunFolder
from smtool.data import open_images, training_batches
from smtool.data.images import jpeg_on_gpu
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule
from smtool.errors import DataError, RecipeError
from smtool.recipe import Recipe, TrainAE
from smtool.training.distributed import Ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("jpeg") / "photos"
    source = find_source("builtin:photos?train=6&val=2")
    prepare_images(Preparation(source, Rule(32, image_format="jpeg:90")), out, workers=1)
    return out


def _open(folder):
    return open_images(str(folder), "train", image_size=32)


def test_batches_are_those_that_pillow_decodes(folder):
    images = _open(folder)
    settings = {"seed": 0, "batch": 4, "first": 2, "start": 1, "stop": 4, "workers": 2}
    ours, theirs = (training_batches(images, **settings, jpegs_on=place) for place in ("cpu", ""))
    for _ in range(3):
        one, other = next(ours), next(theirs)
        assert one.ids == other.ids and one.images.dtype == torch.uint8 and one.images.shape == (3, 3, 32, 32)
        assert torch.equal(one.images, other.images)      # both are libjpeg-turbo with its slow transform
    ours.close()
    theirs.close()


def test_an_image_that_is_not_the_one_of_the_card_is_damage(folder, monkeypatch):
    images = _open(folder)
    monkeypatch.setattr(images, "_bytes", lambda index: b"\xff\xd8 no image")
    with pytest.raises(DataError, match="cannot be decoded on cpu"):
        images.read_jpegs([0], "cpu")
    small = jpeg_on_gpu.io.BytesIO()
    Image.fromarray(np.zeros((16, 32, 3), np.uint8)).save(small, "JPEG")
    monkeypatch.setattr(images, "_bytes", lambda index: small.getvalue())
    with pytest.raises(DataError, match="16 high and 32 wide"):
        images.read_jpegs([0], "cpu")


def test_what_cannot_be_decoded_is_refused(folder, monkeypatch):
    card = _open(folder).card
    refused = jpeg_on_gpu.refuse_undecodable
    with pytest.raises(RecipeError, match="needs an NVIDIA GPU, but this run is on cpu"):
        refused(card, "cpu")
    with pytest.raises(RecipeError, match="stored as png") as found:
        refused(card.model_copy(update={"image_format": "png"}), "cuda")
    assert "--format jpeg:95" in found.value.hint
    with pytest.raises(RecipeError, match="their mode is L"):
        refused(card.model_copy(update={"mode": "L"}), "cuda")
    if not torch.cuda.is_available():
        with pytest.raises(RecipeError, match="torchvision cannot decode JPEG on cuda"):
            refused(card, "cuda")
    jpeg_on_gpu.refuse_decoder("cpu")
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    with pytest.raises(RecipeError, match=r"torchvision cannot decode JPEG on cpu \(.*torchvision.io"):
        jpeg_on_gpu.refuse_decoder("cpu")


def test_a_run_asks_before_it_builds_anything(folder, monkeypatch):
    tables = TrainAE.model_validate({
        "steps": 1, "optimizer": {"warmup": 0}, "data": {"train": str(folder), "image_size": 32, "batch": 2, "decode": "gpu"},
        "model": {"downsample": 4, "latent_channels": 4, "channels": [4, 4, 4], "norm_groups": 2},
    })
    recipe, place = Recipe(tables, "", "none", Path("none.toml")), RunFolder(Path("/nonexistent"))
    with pytest.raises(RecipeError, match="this run is on cpu"):
        autoencoder_run(recipe, place, Ranks(0, 1, "cpu"), None)
    monkeypatch.setattr("smtool.commands.train.run_autoencoder.refuse_undecodable", lambda card, device: None)
    run = autoencoder_run(recipe, place, Ranks(0, 1, "cpu"), None)
    plain = replace(recipe, tables=tables.model_copy(update={"data": tables.data.model_copy(update={"decode": "cpu"})}))
    ours, theirs = (next(iter(one.reports(0))).values for one in (run, autoencoder_run(plain, place, Ranks(0, 1, "cpu"), None)))
    assert ours == theirs


def test_a_resumed_run_keeps_it():
    assert "data.decode" not in run_folder._FREE_KEYS
