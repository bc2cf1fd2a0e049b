"""train-dit on `dct:BxM`: eta measured on the images, no cache needed, a checkpoint that samples by itself."""

import json

import pytest

from smtool.commands.prepare.latents import prepare_latents
from smtool.data import open_images
from smtool.data.latents.dct_measures import images_eta
from smtool.errors import RecipeError
from smtool.inference.diffusion_model import read_diffusion
from smtool.tokenizers.dct import DCT

IMAGES = ("data.train='data/classes'", "data.image_size=32", "steps=2", "save_every=2")


def log_of(run):
    return (run / "log.txt").read_text()


def test_eta_is_measured_and_images_are_encoded_in_every_step(studio, tmp_path):
    run = studio.train(tmp_path / "dct", "latents.autoencoder='dct:4x9,eta=measured'", "latents.stats='published'", *IMAGES)
    eta, count = images_eta(open_images("data/classes", "train", image_size=32), 4)
    assert count == 42 and 100 < eta <= 512
    assert f"images are encoded in every step by dct:4x9,eta={eta:.9g}" in log_of(run)
    model = read_diffusion(run / "ckpt.safetensors")
    assert isinstance(model.autoencoder.config, DCT) and model.autoencoder.config.eta == eta
    assert model.latent_shape == (54, 4, 4) and model.metadata["autoencoder"]["embedded"]
    assert (model.stats.mean.item(), model.stats.std.item()) == (0, 1)
    again = studio.train(run, "latents.autoencoder='dct:4x9,eta=measured'", "latents.stats='published'", *IMAGES)
    assert again == run


def test_a_prepared_cache_is_used_and_a_stale_eta_is_named(studio, tmp_path):
    folder = prepare_latents("dct:2x4,eta=100", data="data/classes", dtype="fp32")
    run = studio.train(tmp_path / "cached", "latents.autoencoder='dct:2x4,eta=100'", "latents.dtype='fp32'", *IMAGES)
    card = json.loads((folder / "latents.json").read_text())
    assert f"latents are read from {folder}" in log_of(run)
    assert f"eta 100 of dct:2x4,eta=100 (given) is not that of data/classes, {card['dct']['eta']:.9g}" in log_of(run)


def test_images_are_asked_for_where_eta_must_be_measured(studio, tmp_path):
    with pytest.raises(RecipeError, match=r"data\.train is required, because dct:2x4,eta=measured does not state"):
        studio.train(tmp_path / "none", "latents.autoencoder='dct:2x4,eta=measured'")


def test_a_side_that_macro_blocks_do_not_divide_names_sizes_that_work(studio, tmp_path):
    images = ("data.train='builtin:photos?train=8&val=4'", "data.image_size=36")
    changes = ("latents.autoencoder='dct:4x9'", "latents.stats='published'", *images)
    with pytest.raises(RecipeError, match=r"36x36 cannot be encoded by dct-4x9: both sides must be multiples of 8") as raised:
        studio.train(tmp_path / "odd", *changes)
    assert raised.value.hint == "Use another size of images."


def test_prefixes_beyond_the_latents_channels_are_refused_before_the_first_step(studio, tmp_path):
    changes = ("latents.autoencoder='dct:4x9'", "latents.stats='published'", "channel_prefix.lengths=[9, 55]", *IMAGES)
    with pytest.raises(RecipeError, match=r"channel_prefix\.lengths: has 55, but the latents have 54 channels") as raised:
        studio.train(tmp_path / "long", *changes)
    assert raised.value.hint == "Use numbers up to 54." and not list(tmp_path.glob("long/*.safetensors"))
