from pathlib import Path

import pytest
import torch
import warm_process

from smtool.checkpoints import write_autoencoder
from smtool.commands.inspect.inspection import describe
from smtool.data import open_images
from smtool.data.cache.write import write_cache
from smtool.data.features.prepare import FeaturePreparation
from smtool.features.teachers import Teacher
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A working folder with an autoencoder, a latent cache and a transformer of two steps."""
    folder = tmp_path_factory.mktemp("inspect")
    images = open_images("builtin:photos?val=8", "train", image_size=32, root=folder / "data")
    with initializing(0, "test"):
        autoencoder = SDVAE(downsample=4, latent_channels=2, channels=(4, 4, 8), norm_groups=4, blocks_per_level=1).build()
    metadata = {"recipe": {"data": {"train": str(images.folder), "image_size": 32}}, "step": 1, "data": images.digest}
    write_autoencoder(folder / "ae.safetensors", autoencoder, metadata)
    sizes = ["model.size=custom", "model.depth=2", "model.width=32", "model.heads=2", "validation.num_images=4"]
    changes = [part for key in ("latents.autoencoder=ae.safetensors", "steps=2", *sizes) for part in ("--set", key)]
    done = warm_process.run("train-dit", "sit", "--out", "run", *changes, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_checkpoint_names_its_network_autoencoder_and_data(trained):
    rows = describe(str(trained / "run" / "ckpt.safetensors")).rows
    assert rows["kind"].startswith("diffusion transformer")
    assert rows["architecture"] == "sit custom: 2 blocks, width 32, 2 heads, patch 2"
    assert rows["latent"] == "2 x 8 x 8, 4 x 4 tokens"
    assert rows["step"] == "2, average weights"
    assert "in this file" in rows["autoencoder"]


def test_a_latent_cache_names_its_autoencoder(trained, monkeypatch):
    from smtool import load_autoencoder

    (cache,) = (trained / "data" / "latents").iterdir()
    rows = describe(str(cache)).rows
    assert rows["kind"] == "latent cache"
    assert load_autoencoder(trained / "ae.safetensors").digest in rows["autoencoder"]
    assert rows["latents"].endswith("with mirrored images")


def test_a_cache_of_features_names_its_teacher_and_its_images(trained, tmp_path):
    images = open_images("builtin:photos?val=8", "train", image_size=32, root=trained / "data")
    normal = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    network = torch.nn.Conv2d(3, 7, 8, 8)
    teacher = Teacher(network, name="t", digest="d" * 64, size=(32, 16), features=lambda f, x: f(x), **normal)
    write_cache(FeaturePreparation(teacher, images, (4, 2), flip=False, dtype="fp32"), tmp_path / "cache", batch=64, workers=1)
    rows = describe(str(tmp_path / "cache")).rows
    assert rows["kind"] == "cache of a teacher's features"
    assert rows["features"] == f"{len(images):,} of 7 x 4 x 2, fp32"
    assert rows["teacher"] == f"t, digest {'d' * 64}"
    assert rows["input"] == "32 x 16 pixels, for 4 x 2 tokens"
    assert images.digest in rows["images"]


@pytest.mark.parametrize(("recipe", "words"), [("uvit", "ddpm"), ("repa-dog", "flow")])
def test_a_recipe_of_train_dit_is_described_as_one(recipe, words):
    rows = describe(recipe).rows
    assert rows["kind"] == "recipe of `smtool train-dit`"
    assert rows["process"].startswith(words)


@pytest.mark.parametrize(("given", "recipe", "right"), [("train-ae", "sit", "train-dit"), ("train-dit", "dsm", "train-ae")])
def test_a_recipe_given_to_the_wrong_command_names_the_right_one(tmp_path, monkeypatch, command, given, recipe, right):
    monkeypatch.chdir(tmp_path)
    code, _, said = command(given, recipe)
    assert code == 2
    assert f"Use: smtool {right} {recipe}" in said
