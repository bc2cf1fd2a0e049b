"""Caches of a teacher's features: contents, joining with latents, and errors."""

import hashlib
import json
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from torch import nn

from smtool.data import encoded_batches, latent_batches, open_images, open_latents
from smtool.data.cache.shards import unpacked
from smtool.data.cache.write import estimated_bytes, write_cache
from smtool.data.features.prepare import FeaturePreparation
from smtool.data.features.shards import open_features
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule
from smtool.data.latents.prepare import LatentPreparation, write_latents
from smtool.data.order import batch_flips
from smtool.errors import DataError
from smtool.features.teachers import Teacher
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing

ORDER = {"seed": 5, "batch": 6, "first": 2, "start": 0, "stop": 6, "workers": 2}


def small_teacher(seed=0, *, cells=4, name="timm:small"):
    """A teacher that resizes images and applies a convolution over patches: features of dimension 5 on a cells x cells grid."""
    with initializing("teacher", seed):
        network = nn.Conv2d(3, 5, 6, 6)
    digest = hashlib.sha256(bytes(network.weight.detach().numpy())).hexdigest()
    size = (6 * cells, 6 * cells)
    return Teacher(
        network, name=name, digest=digest, size=size, mean=(0.5,) * 3, std=(0.2,) * 3, features=lambda network, x: network(x)
    )


@pytest.fixture(scope="module")
def teacher():
    return small_teacher()


def written(out, teacher, images, *, batch=4, report=None, **settings):
    settings = {"tokens": (4, 4), "dtype": "fp32", "images_per_shard": 8, **settings}
    write_cache(FeaturePreparation(teacher, images, **settings), Path(out), batch=batch, workers=2, report=report)
    return Path(out)


@pytest.fixture(scope="module")
def exact(tmp_path_factory, teacher, images):
    """A float32 cache with mirrored images."""
    folder = written(tmp_path_factory.mktemp("exact") / "cache", teacher, images)
    return open_features(folder, teacher=teacher, images=images)


@pytest.fixture(scope="module")
def autoencoder():
    with initializing("test", 0):
        return SDVAE(downsample=4, latent_channels=3, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1).build()


@pytest.fixture(scope="module")
def latents(tmp_path_factory, autoencoder, images):
    folder = tmp_path_factory.mktemp("latents") / "cache"
    preparation = LatentPreparation(autoencoder, images, autoencoder_digest="a" * 64, checkpoint="x", dtype="fp32")
    write_latents(preparation, folder, batch=4, workers=1)
    return open_latents(folder, autoencoder=None, data=None)


def some(batches, count):
    with closing(batches):
        return list(islice(batches, count))


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).rglob("*") if path.is_file()}


def pixels(images, chosen):
    """Images in uint8, by rounding from [-1, 1], computed independently of `to_uint8`."""
    return torch.from_numpy(np.round((images.read(chosen).images.numpy() + 1) * 127.5).astype(np.uint8))


def test_features_are_those_of_the_image_and_of_the_mirrored_image(exact, teacher, images):
    chosen, flipped = [17, 0, 8, 9], [False, True, True, False]
    found = exact.read(chosen, flipped)
    assert (found.dtype, found.shape) == (torch.float32, (4, 5, 4, 4))
    for k, mirrored in enumerate(flipped):
        x = pixels(images, [chosen[k]])
        expected = teacher(x.flip(-1) if mirrored else x)
        torch.testing.assert_close(found[k : k + 1], expected, rtol=0, atol=1e-5)
    # features of a mirrored image are not the mirrored features
    assert (exact.read([0], [True]) - exact.read([0], [False]).flip(-1)).abs().max() > 1e-2


def test_the_card_names_teacher_images_and_settings(exact, teacher, images):
    card = json.loads((exact.folder / "features.json").read_text())
    assert card["format"] == "smtool teacher features 1"
    assert (card["teacher"], card["weights"], card["data"]) == ("timm:small", teacher.digest, images.digest)
    assert (card["tokens"], card["input_size"], card["grid"], card["dim"]) == ([4, 4], [24, 24], [4, 4], 5)
    assert [shard["images"] for shard in card["shards"]] == [8, 8, 2]
    assert len(exact) == 18


def test_webdataset_finds_the_same_numbers_under_the_images_keys(exact):
    url = str(exact.folder / "train-{000000..000002}.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in samples] == [f"{number:08d}" for number in range(18)]
    for suffix, side in (("safetensors", False), ("flip.safetensors", True)):
        assert torch.equal(unpacked(sample[suffix] for sample in samples)["features"], exact.read(range(18), [side] * 18))


def test_bf16_rounds_to_a_256th(tmp_path, exact, teacher, images):
    rough = open_features(written(tmp_path / "rough", teacher, images, dtype="bf16"), teacher=teacher, images=images)
    fine = exact.read(range(18), [False] * 18)
    off = (rough.read(range(18), [False] * 18) - fine).abs() / fine.abs()
    assert 0 < off.max() <= 1 / 256


def test_an_interrupted_and_resumed_run_gives_the_bytes_of_an_uninterrupted_one(tmp_path, exact, teacher, images):
    def stop(done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "out", teacher, images, report=stop)
    with pytest.raises(DataError, match=r"interrupted; run the same `smtool prepare \.\.\. --features`"):
        open_features(tmp_path / "out", teacher=teacher, images=images)
    first = (tmp_path / "out" / "train-000000.tar").stat().st_mtime_ns
    seen = []
    written(tmp_path / "out", teacher, images, report=lambda *said: seen.append(said))
    assert seen == [(8, 18), (12, 18), (16, 18), (18, 18)]
    assert contents(tmp_path / "out") == contents(exact.folder)
    assert (tmp_path / "out" / "train-000000.tar").stat().st_mtime_ns == first


def test_the_estimated_size_is_that_of_the_files(tmp_path, teacher, images):
    folder = written(tmp_path / "whole", teacher, images, dtype="bf16", flip=False, images_per_shard=1024)
    size = sum(path.stat().st_size for path in folder.glob("train-*"))
    told = estimated_bytes(FeaturePreparation(teacher, images, (4, 4), flip=False, dtype="bf16"))
    assert 0 <= size - told <= 10240 + 512    # a tar ends in zeros, to a multiple of 10240 bytes; an .npy has a header


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (small_teacher(1), "made with weights {mine} (timm:small), not with weights {theirs}"),
        (small_teacher(cells=3), "made with input 24x24 and grid 4x4, not with input 18x18 and grid 3x3"),
        (small_teacher(name="dinov2-s"), "made with teacher timm:small, not with teacher dinov2-s"),
    ],
)
def test_the_error_of_a_stale_cache_names_both_inputs_and_the_command_for_a_new_one(exact, teacher, images, other, words):
    with pytest.raises(DataError) as caught:
        open_features(exact.folder, teacher=other, images=images)
    expected = words.format(mine=teacher.digest[:8], theirs=other.digest[:8])
    assert f"is a stale feature cache: {expected}" in str(caught.value)
    grid = f"{other.grid[0]}x{other.grid[1]}"
    assert f"smtool prepare {images.folder} --features {other.name} --tokens {grid}" in str(caught.value)


def test_a_cache_of_other_images_is_stale(exact, teacher, images, tmp_path, photo_folder):
    prepare_images(Preparation(find_source(str(photo_folder(4))), Rule(16), val_fraction=0.0), tmp_path / "other", workers=1)
    other = open_images(str(tmp_path / "other"), "train", image_size=16)
    words = f"made with images {images.digest[:8]} ({images.folder}), not with images {other.digest[:8]}"
    with pytest.raises(DataError) as caught:
        open_features(exact.folder, teacher=teacher, images=other)
    assert words in str(caught.value) and f"smtool prepare {other.folder} --features" in str(caught.value)


def test_another_teacher_does_not_write_into_a_finished_cache(tmp_path, teacher, images):
    folder = written(tmp_path / "out", teacher, images)
    before = contents(folder)
    written(folder, teacher, images, batch=7)    # the same again: verified
    for other, settings, name in ((small_teacher(1), {}, "weights"), (teacher, {"flip": False}, "flip")):
        with pytest.raises(DataError, match=f"already holds features with {name} = "):
            written(folder, other, images, **settings)
    assert contents(folder) == before
    with pytest.raises(DataError, match=r"is not a feature cache(.|\n)*--features TEACHER --tokens 16x16"):
        open_features(tmp_path, teacher=teacher, images=images)


def test_features_that_are_not_finite_name_the_image(tmp_path, teacher, images):
    class Overflowing:
        name, digest, device, size, grid, dim = "t", "d" * 64, torch.device("cpu"), (24, 24), (4, 4), 5

        def __call__(self, pictures):
            hit = (pictures == pixels(images, [13])).flatten(1).all(1).view(-1, 1, 1, 1)
            return torch.where(hit, torch.inf, teacher(pictures))

    with pytest.raises(DataError, match="The features of t for image 00000013 are not finite"):
        written(tmp_path / "out", Overflowing(), images)


@pytest.mark.parametrize("online", [False, True])
def test_cached_features_come_with_the_latents_they_belong_to(exact, teacher, latents, autoencoder, images, online):
    if online:
        batches = some(encoded_batches(images, autoencoder, flip=True, features=exact, **ORDER), 3)
    else:
        batches = some(latent_batches(latents, flip=True, images=images, features=exact, **ORDER), 3)
    for batch in batches:
        torch.testing.assert_close(batch.features, teacher(batch.images), rtol=0, atol=1e-5)
    assert 0 < sum(sum(batch_flips(seed=5, batch=6, index=2 + k)) for k in range(3)) < 18
    half = batches[0].slice(2, 4)
    assert torch.equal(half.features, batches[0].features[2:4])


def test_without_mirrored_features_flips_are_refused_at_once(tmp_path, teacher, latents, autoencoder, images):
    folder = written(tmp_path / "plain", teacher, images, flip=False)
    plain = open_features(folder, teacher=teacher, images=images)
    for start in (
        lambda flip: latent_batches(latents, flip=flip, features=plain, **ORDER),
        lambda flip: encoded_batches(images, autoencoder, flip=flip, features=plain, **ORDER),
    ):
        with pytest.raises(DataError, match="holds no features of flipped images"):
            start(True)
        assert some(start(False), 1)[0].features.shape == (6, 5, 4, 4)


def test_images_and_features_beside_changed_latents_are_those_of_the_unchanged_images(exact, autoencoder, images):
    """A low-pass warm-up changes the encoded images, but not the teacher's input."""
    dark = some(encoded_batches(images, autoencoder, flip=True, features=exact, transform=lambda x: 0.1 * x, **ORDER), 1)[0]
    plain = some(encoded_batches(images, autoencoder, flip=True, features=exact, **ORDER), 1)[0]
    assert torch.equal(dark.images, plain.images)
    assert torch.equal(dark.features, plain.features)
    with torch.no_grad():
        expected = autoencoder.encode(0.1 * (plain.images.float() / 127.5 - 1)).mean
    torch.testing.assert_close(dark.mean, expected, rtol=0, atol=1e-5)
    assert (dark.mean - plain.mean).abs().max() > 1e-2
