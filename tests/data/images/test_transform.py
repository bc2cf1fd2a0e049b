import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from smtool.data.images.decoding import UnusableImage
from smtool.data.images.transform import Rule, encode, to_size
from smtool.errors import RecipeError
from smtool.spectrum import dct_upsample


def encoded(image, image_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double()


@pytest.mark.parametrize("width, height, halvings", [(304, 184, 1), (97, 64, 0), (64, 150, 0), (512, 264, 2)])
def test_center_crop_is_box_halving_then_antialiased_bicubic_then_the_middle(rng, width, height, halvings):
    size = 48
    image = Image.fromarray(rng.integers(64, 192, (height, width, 3), dtype=np.uint8))    # no overshoot leaves 0..255
    x = tensor(image)
    for _ in range(halvings):
        x = ((x[..., ::2] + x[..., 1::2] + 1) / 2).floor()    # Pillow rounds halves up after each axis
        x = ((x[..., ::2, :] + x[..., 1::2, :] + 1) / 2).floor()
    assert size <= min(x.shape[-2:]) < 2 * size
    scale = size / min(x.shape[-2:])
    target = (round(x.shape[-2] * scale), round(x.shape[-1] * scale))
    x = F.interpolate(x, size=target, mode="bicubic", antialias=True, align_corners=False)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    difference = tensor(to_size(image, Rule(size), "a")) - x[..., top : top + size, left : left + size]
    assert difference.abs().max() < 3    # the bicubic, too, is rounded to 8 bits after each axis
    assert difference.abs().mean() < 0.6


def test_center_crop_keeps_the_middle_and_leaves_an_image_of_the_right_size_unchanged(noise):
    image = noise(96, 32)
    assert np.array_equal(np.array(to_size(image, Rule(32), "a")), np.array(image)[:, 32:64])


def test_crop_none_shows_the_whole_picture(noise):
    image = noise(90, 60)
    square = tensor(to_size(image, Rule(30, "none"), "a"))
    expected = F.interpolate(tensor(image), size=(30, 30), mode="bilinear", antialias=True, align_corners=False)
    assert (square - expected).abs().max() < 2


def test_random_crops_are_fixed_by_seed_and_sample_and_differ_between_samples(noise):
    image, rule = noise(64, 48), Rule(16, "random", seed=3)
    crops = {np.array(to_size(image, rule, f"sample {n}")).tobytes() for n in range(20)}
    assert len(crops) == 20
    assert np.array_equal(to_size(image, rule, "a"), to_size(image, rule, "a"))
    assert not np.array_equal(to_size(image, rule, "a"), to_size(image, Rule(16, "random", seed=4), "a"))


def test_random_crops_reach_every_border():
    ramp = Image.fromarray(np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (100, 1, 3)))
    lefts = [np.array(to_size(ramp, Rule(80, "random"), str(n)))[0, 0, 0] for n in range(200)]
    assert min(lefts) == 0
    assert max(lefts) >= 18    # without shrinking, the last possible left border is 20


def test_an_extremely_elongated_image_is_refused_before_it_fills_memory():
    with pytest.raises(UnusableImage, match="elongated"):
        to_size(Image.new("RGB", (1, 5000)), Rule(512), "a")


def test_png_is_lossless_and_jpeg_has_the_stated_quality(noise):
    image = noise(32, 32)
    assert np.array_equal(np.array(Image.open(io.BytesIO(encode(image, "png")))), np.array(image))
    ours, pillows = encode(image, "jpeg:75"), encoded(image, "JPEG", quality=75)
    assert Image.open(io.BytesIO(ours)).quantization == Image.open(io.BytesIO(pillows)).quantization
    assert len(encode(image, "jpeg:95")) > len(encode(image, "jpeg:75"))
    assert encode(image, "png") == encode(image, "png")


@pytest.mark.parametrize("wrong", [{"size": 4}, {"size": 64, "crop": "middle"}, {"size": 64, "image_format": "jpeg"},
                                   {"size": 64, "image_format": "jpeg:101"}, {"size": 64, "image_format": "webp"}])  # fmt: skip
def test_an_invalid_rule_is_a_recipe_error(wrong):
    with pytest.raises(RecipeError):
        Rule(**wrong)


def test_smaller_images_are_doubled_by_the_dct_as_in_the_spectrum_room(rng):
    image = Image.fromarray(rng.integers(64, 192, (24, 40, 3), dtype=np.uint8))
    expected = dct_upsample(tensor(image)).round().clamp(0, 255)[..., 16:64]
    assert torch.equal(tensor(to_size(image, Rule(48, upsample="dct"), "a")), expected)
    gray = Image.fromarray(np.array(image)[..., 0], "L")
    expected = dct_upsample(torch.tensor(np.array(gray)).double()).round().clamp(0, 255)
    assert np.array_equal(to_size(gray, Rule((48, 80), upsample="dct"), "a"), expected)
    larger = Image.fromarray(rng.integers(0, 256, (96, 50, 3), dtype=np.uint8))
    assert np.array_equal(to_size(larger, Rule(48, upsample="dct"), "a"), to_size(larger, Rule(48), "a"))


@pytest.mark.parametrize("side", [20, 26, 12])
def test_the_dct_does_nothing_but_double(noise, side):
    with pytest.raises(UnusableImage, match=f"{side}x{side} pixels cannot be enlarged by the DCT, which doubles"):
        to_size(noise(side, side), Rule(52 if side == 26 else 48, upsample="dct"), "a")
    with pytest.raises(RecipeError, match="--upsample dct enlarges exactly twice, which --crop random does not"):
        Rule(48, "random", upsample="dct")
