"""Rectangles, and images of one to four channels, from the files of a source to batches."""

import hashlib
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from smtool.data import open_images, read_card
from smtool.data.images.card import DatasetCard
from smtool.data.images.decoding import Reading, decode
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule, to_size
from smtool.errors import DataError, RecipeError
from smtool.image_shape import CHANNELS, ImageSize
from smtool.spectrum import PHYSICAL
from smtool.spectrum.psd import spectrum_of

RECTANGLE = ImageSize(24, 40)


@pytest.fixture
def photos(photo_folder):
    return photo_folder(12)


def gradient(width, height):
    """Red grows to the right and green downwards, by whole levels."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


def decoded(image, mode):
    file = io.BytesIO()
    image.save(file, "PNG")
    return decode(file.getvalue(), Reading(mode=mode)).image


def prepared(folder, out, **rule):
    reading = Reading(mode=rule.pop("mode", "RGB"))
    prepare_images(Preparation(find_source(str(folder)), Rule(**rule, reading=reading), 0.25), out, workers=1)
    return out


@pytest.mark.parametrize("crop", ["center", "random", "none"])
@pytest.mark.parametrize("size", [(40, 24), (100, 30), (33, 150), (24, 40)])
def test_every_crop_gives_the_size_that_is_asked_for(crop, size, noise):
    assert to_size(noise(*size), Rule(RECTANGLE, crop), "a").size == (40, 24)


def test_the_middle_of_an_image_that_covers_the_size_is_kept():
    cut = np.asarray(to_size(gradient(60, 30), Rule(ImageSize(30, 20)), ""))      # as high as the image
    assert np.array_equal(cut, np.asarray(gradient(60, 30))[:, 20:40])
    cut = np.asarray(to_size(gradient(60, 30), Rule(ImageSize(10, 60)), ""))      # as wide as the image
    assert np.array_equal(cut, np.asarray(gradient(60, 30))[10:20])


@pytest.mark.parametrize(("width", "height", "halvings"), [(200, 100, 2), (90, 70, 1), (79, 300, 0), (160, 96, 2), (164, 47, 0)])
def test_a_large_image_is_halved_while_both_sides_allow_it_then_covers_the_size(width, height, halvings):
    found = np.asarray(to_size(gradient(width, height), Rule(RECTANGLE), "")).astype(int)
    image = gradient(width, height)
    for _ in range(halvings):
        image = image.reduce(2)
    assert image.width < 80 or image.height < 48
    scale = max(40 / image.width, 24 / image.height)
    wide, high = round(image.width * scale), round(image.height * scale)
    left, top = (wide - 40) // 2, (high - 24) // 2
    whole = np.asarray(image.resize((wide, high), Image.Resampling.BICUBIC)).astype(int)
    assert np.array_equal(found, whole[top : top + 24, left : left + 40])


def test_random_rectangles_reach_every_border_and_keep_the_aspect():
    cuts = [np.asarray(to_size(gradient(100, 60), Rule(ImageSize(48, 80), "random"), str(n))).astype(int) for n in range(200)]
    for channel, last in ((0, 99), (1, 59)):
        edges = np.array([[cut[..., channel].min(), cut[..., channel].max()] for cut in cuts])
        assert edges[:, 0].min() <= 1 and edges[:, 1].max() >= last - 1
    spans = np.array([[np.ptp(cut[..., 0]) / 80, np.ptp(cut[..., 1]) / 48] for cut in cuts])
    assert np.abs(spans[:, 0] - spans[:, 1]).max() < 0.06


def test_a_number_is_a_square_with_the_pixels_of_equal_sides(noise):
    assert Rule(24) == Rule(ImageSize(24, 24)) == Rule([24, 24])
    for size in (0, 4, [64, 4], [16, 9000]):
        with pytest.raises((RecipeError, ValueError), match=r"8 and 8192|at least 1"):
            Rule(size)


def test_gray_is_the_luma_of_itu_601_and_a_gray_file_is_unchanged(noise):
    image = noise(9, 7)
    luma = np.asarray(image) @ [0.299, 0.587, 0.114]
    assert np.abs(np.asarray(decoded(image, "L")) - luma).max() <= 0.51
    for mode in ("L", "LA", "RGB", "RGBA"):
        gray = decoded(image.convert("L"), mode)
        assert gray.mode == mode
        assert np.array_equal(np.asarray(gray.convert("L")), np.asarray(image.convert("L")))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_alpha_is_kept_or_put_on_white(mode, rng):
    pixels = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    found = np.asarray(decoded(Image.fromarray(pixels, "RGBA"), mode)).reshape(6, 5, -1).astype(float)
    assert found.shape[-1] == CHANNELS[mode]
    colors, alpha = pixels[..., :3].astype(float), pixels[..., 3:] / 255
    if mode in ("LA", "RGBA"):
        assert np.array_equal(found[..., -1], pixels[..., 3])
        found = found[..., :-1]
    else:
        colors = colors * alpha + 255 * (1 - alpha)
    expected = colors if "RGB" in mode else colors @ [[0.299], [0.587], [0.114]]
    assert np.abs(found - expected).max() <= 1.1


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_opaque_image_gets_an_alpha_of_255(mode, noise):
    assert (np.asarray(decoded(noise(8, 8), mode))[..., -1] == 255).all()


def test_a_file_without_alpha_cannot_store_it():
    with pytest.raises(RecipeError, match=r"jpeg:95 cannot store the alpha of mode LA[\s\S]*--format png"):
        Rule(16, image_format="jpeg:95", reading=Reading(mode="LA"))
    with pytest.raises(RecipeError, match=r"unknown image mode 'CMYK'[\s\S]*L, LA, RGB, RGBA"):
        Reading(mode="CMYK")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_batches_have_the_size_and_channels_of_the_card(mode, photos, tmp_path):
    out = prepared(photos, tmp_path / "out", size=RECTANGLE, mode=mode)
    card = read_card(out)
    assert (card.image_size, card.mode, card.channels) == (RECTANGLE, mode, CHANNELS[mode])
    assert json.loads((out / "dataset.json").read_text())["image_size"] == [24, 40]
    assert "rectangle" in card.crop_rule
    images = open_images(str(out), "train", image_size=[24, 40], channels=CHANNELS[mode])
    batch = images.read([0, 2]).images
    assert batch.shape == (2, CHANNELS[mode], 24, 40)
    color = open_images(str(prepared(photos, tmp_path / "rgb", size=RECTANGLE)), "train", image_size=RECTANGLE)
    rgb = color.read([0, 2]).images
    seen = batch[:, :3] if mode.startswith("RGB") else batch[:, :1]
    expected = rgb if mode.startswith("RGB") else torch.einsum("c,bchw->bhw", torch.tensor([0.299, 0.587, 0.114]), rgb)[:, None]
    assert (seen - expected).abs().max() < 0.02      # luma is rounded before the image is resized
    if mode in ("LA", "RGBA"):
        assert (batch[:, -1] == 1).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_spectrum_of_the_card_is_that_of_the_estimator(mode, photos, tmp_path):
    out = prepared(photos, tmp_path / "out", size=RECTANGLE, mode=mode)
    spectrum = read_card(out).spectrum
    images = open_images(str(out), "train", image_size=RECTANGLE)
    found = spectrum_of(images.read(range(len(images))).images.double(), PHYSICAL)
    np.testing.assert_allclose(spectrum.power, found.mean(), rtol=1e-5)      # the card has 6 digits
    np.testing.assert_allclose(spectrum.frequency, found.frequency, rtol=1e-5)


def test_plans_of_squares_in_rgb_are_those_of_earlier_versions(photos):
    source = find_source(str(photos))
    rule = Preparation(source, Rule(16)).plan()["rule"]
    assert rule == {"size": 16, "crop": "center", "image_format": "png", "seed": 0}
    assert Preparation(source, Rule(RECTANGLE)).plan()["rule"]["size"] == [24, 40]
    gray = Preparation(source, Rule(16, reading=Reading(mode="L")))
    assert gray.plan() == {**Preparation(source, Rule(16)).plan(), "mode": "L"}
    assert gray.folder_name == f"{source.name}-16-L"
    assert Preparation(source, Rule(RECTANGLE)).folder_name == f"{source.name}-24x40"


def test_the_digest_of_a_square_holds_one_number(photos, tmp_path):
    card = read_card(prepared(photos, tmp_path / "out", size=16))
    old = {**card.model_dump(mode="json"), "image_size": 16}
    del old["mode"]
    parts = [16, *([shard.name, shard.sha256] for shard in card.train + card.val)]
    assert card.digest == hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    assert DatasetCard.model_validate(old).digest == card.digest
    assert DatasetCard.model_validate({**old, "image_size": [16, 16]}).digest == card.digest
    assert DatasetCard.model_validate({**old, "image_size": [16, 24]}).digest != card.digest


def test_other_sizes_and_channels_are_errors_that_name_both_and_the_command(photos, tmp_path):
    out = prepared(photos, tmp_path / "out", size=RECTANGLE, mode="L")
    said = r"holds images of 24 high, 40 wide, but 40 high, 24 wide are asked for[\s\S]*size = \[24, 40\][\s\S]*--size 40x24"
    with pytest.raises(DataError, match=said):
        open_images(str(out), "train", image_size=[40, 24])
    said = r"1 channel \(L\), but 3 channels \(RGB\) are asked for[\s\S]*model.image_channels = 1[\s\S]*--size 24x40 --mode RGB"
    with pytest.raises(DataError, match=said):
        open_images(str(out), "train", image_size=RECTANGLE, channels=3)


def test_a_raw_source_is_prepared_with_the_channels_that_are_asked_for(photos, tmp_path):
    for channels in (1, 3):
        images = open_images(str(photos), "train", image_size=16, channels=channels, root=tmp_path / "data")
        assert images.read([0]).images.shape == (1, channels, 16, 16)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {f"{photos.name}-16-L", f"{photos.name}-16"}


def test_builtin_images_are_cut_to_rectangles_of_any_mode(tmp_path):
    out = prepared("builtin:dead-leaves?train=3&val=1", tmp_path / "out", size=RECTANGLE, mode="LA")
    assert open_images(str(out), "val", image_size=RECTANGLE).read([0]).images.shape == (1, 2, 24, 40)
    assert read_card(out).upscaled == 0
