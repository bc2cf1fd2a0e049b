"""`prepare --latents`: from a checkpoint and a source to a cache that is found again."""

import json
from pathlib import Path

import pytest
import torch

from smtool.checkpoints import write_autoencoder
from smtool.commands.prepare.images import prepare
from smtool.commands.prepare.latents import cached_latents, prepare_latents
from smtool.data import open_images, open_latents
from smtool.data.latents.prepare import LatentPreparation
from smtool.errors import CheckpointError, DataError, RecipeError
from smtool.metrics.reconstruction import psnr
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing
from smtool.tokenizers import load_autoencoder

SECTION = SDVAE(downsample=4, latent_channels=3, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1)
SOURCE = "builtin:photos?train=12&val=4"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder with a prepared data/photos and an autoencoder runs/tiny; returns the latter's digest."""
    monkeypatch.chdir(tmp_path)
    prepare(SOURCE, out=tmp_path / "data" / "photos", size=16, workers=1)
    return written(0)


def written(seed):
    with initializing("test", seed):
        autoencoder = SECTION.build()
    write_autoencoder(Path("runs/tiny/ckpt.safetensors"), autoencoder, {})
    return autoencoder.digest


def test_the_folder_of_a_cache_follows_from_the_digests(run):
    told, seen = [], []
    hear = {"announce": lambda *said: told.append(said), "report": lambda *said: seen.append(said)}
    folder = prepare_latents("runs/tiny", data="data/photos", **hear)
    images = open_images("data/photos", "train", image_size=16)
    assert str(folder) == f"data/latents/photos-{run[:8]}-{images.digest[:8]}"
    latents = open_latents(folder, autoencoder=run, data=images.digest)
    assert (len(latents), latents.latent_shape, latents.card.dtype, latents.stats.count) == (12, (3, 4, 4), "bf16", 24)
    assert told == [(folder, told[0][1])]
    assert 0 < told[0][1] < sum(path.stat().st_size for path in folder.iterdir()) < told[0][1] + 20_000
    assert (seen[0], seen[-1]) == ((0, 12), (12, 12))


def test_other_settings_have_other_folders(run):
    folders = [
        prepare_latents("runs/tiny", data="data/photos", **settings)
        for settings in ({}, {"flip": False}, {"dtype": "fp32"}, {"flip": False, "dtype": "fp32"}, {"split": "val"})
    ]
    assert len(set(folders)) == 5
    assert [folder.name.count("noflip") for folder in folders] == [0, 1, 0, 1, 0]


def test_an_unprepared_source_needs_a_size_and_is_prepared_then(run):
    with pytest.raises(RecipeError, match="not prepared yet"):
        prepare_latents("runs/tiny", data=SOURCE)
    folder = prepare_latents("runs/tiny", data=SOURCE, image_size=32)
    assert open_latents(folder, autoencoder=run, data=None).latent_shape == (3, 8, 8)


def test_a_missing_input_is_an_error(run):
    with pytest.raises(CheckpointError, match="no such file, folder or run"):
        prepare_latents("runs/nothing", data="data/photos")
    with pytest.raises(DataError, match=r"holds images of 16 px, but 32 px are asked for"):
        prepare_latents("runs/tiny", data="data/photos", image_size=32)


def test_a_retrained_autoencoder_needs_a_new_cache(run):
    first = prepare_latents("runs/tiny", data="data/photos")
    retrained = written(1)
    assert prepare_latents("runs/tiny", data="data/photos") != first
    with pytest.raises(DataError, match=f"autoencoder {run[:8]} .*autoencoder {retrained[:8]}"):
        open_latents(first, autoencoder=retrained, data=None)
    with pytest.raises(DataError, match=f"already holds latents with autoencoder = {run}"):
        prepare_latents("runs/tiny", data="data/photos", out=first)


def test_a_cache_is_written_on_first_use_and_opened_afterwards(run):
    autoencoder = load_autoencoder("runs/tiny")
    preparation = LatentPreparation(
        autoencoder, open_images("data/photos", "train", image_size=16), autoencoder_digest=run, checkpoint="runs/tiny"
    )
    seen = []
    first = cached_latents(preparation, report=lambda *a: seen.append(a))
    assert seen[-1] == (12, 12)
    autoencoder.encode = None    # encoding again would fail
    again = cached_latents(preparation, stats="scalar", report=lambda *a: seen.append("again"))
    assert "again" not in seen
    assert (again.stats.kind, again.digest) == ("scalar", first.digest)
    assert torch.equal(again.read([3], [True]).mean, first.read([3], [True]).mean)


def test_latents_encoded_in_bf16_are_those_of_autocast_and_are_told_apart(run):
    images = open_images("data/photos", "train", image_size=16)
    rough, exact = (prepare_latents("runs/tiny", data="data/photos", dtype="fp32", precision=name) for name in ("bf16", "fp32"))
    assert rough.name == f"{exact.name}-encoded-bf16"
    ours, theirs = (open_latents(folder, autoencoder=run, data=images.digest) for folder in (rough, exact))
    assert (ours.card.precision, theirs.card.precision) == ("bf16", "fp32") and ours.digest != theirs.digest
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = load_autoencoder("runs/tiny").encode(images.read(range(12)).images)
    found = ours.read(range(12), [False] * 12)
    assert torch.equal(found.mean, expected.mean.float()) and torch.equal(found.logvar, expected.logvar.float())
    difference = (found.mean - theirs.read(range(12), [False] * 12).mean).std() / found.mean.std()
    assert 1e-4 < difference < 2e-2
    with pytest.raises(DataError, match="already holds latents with precision = bf16, but precision = the default was requested"):
        prepare_latents("runs/tiny", data="data/photos", dtype="fp32", out=rough)
    with pytest.raises(RecipeError, match="has no weights, so that encoding in bf16 would only round"):
        prepare_latents("pixels", data="data/photos", precision="bf16")


def test_caches_of_versions_without_a_precision_are_fp32_and_go_on(run):
    folder = prepare_latents("runs/tiny", data="data/photos")
    card = json.loads((folder / "latents.json").read_text())
    assert card.pop("precision") == "fp32"
    (folder / "latents.json").write_text(json.dumps(card))
    assert prepare_latents("runs/tiny", data="data/photos") == folder
    preparation = LatentPreparation(
        load_autoencoder("runs/tiny"), open_images("data/photos", "train", image_size=16), autoencoder_digest=run, checkpoint="x"
    )
    assert "precision" not in preparation.plan()


def test_decoding_bf16_latents_costs_little(run):
    autoencoder = load_autoencoder("runs/tiny")
    images = open_images("data/photos", "train", image_size=16)
    rough = open_latents(prepare_latents("runs/tiny", data="data/photos"), autoencoder=run, data=images.digest)
    with torch.no_grad():
        batch = images.read(range(12)).images
        direct = autoencoder.decode(autoencoder.encode(batch).mean)
        cached = autoencoder.decode(rough.read(range(12), [False] * 12).mean)
    assert psnr(direct.clamp(-1, 1), cached.clamp(-1, 1)).min() > 50


def test_latents_of_pixels_are_the_images_and_their_posterior_is_a_point(run):
    images = open_images("data/photos", "train", image_size=16)
    found = open_latents(prepare_latents("pixels", data="data/photos", dtype="fp32"), autoencoder=None, data=images.digest)
    pixels = images.read(range(12)).images
    batch = found.read(range(12), [False] * 12)
    assert torch.equal(batch.mean, pixels)
    assert torch.equal(found.read(range(12), [True] * 12).mean, pixels.flip(-1))
    assert torch.equal(batch.posterior.sample(torch.ones_like(pixels)), pixels)
    both = torch.cat([pixels, pixels.flip(-1)]).double()
    torch.testing.assert_close(found.stats.mean.double(), both.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.stats.std.double(), both.std((0, 2, 3), correction=0), rtol=1e-5, atol=1e-6)
