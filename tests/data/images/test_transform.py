import io
import struct
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from smtool.data.images.decoding import UnusableImage, decode
from smtool.data.images.transform import Rule, encode, to_square
from smtool.errors import RecipeError


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
    difference = tensor(to_square(image, Rule(size), "a")) - x[..., top : top + size, left : left + size]
    assert difference.abs().max() < 3    # the bicubic, too, is rounded to 8 bits after each axis
    assert difference.abs().mean() < 0.6


def test_center_crop_keeps_the_middle_and_leaves_an_image_of_the_right_size_unchanged(noise):
    image = noise(96, 32)
    assert np.array_equal(np.array(to_square(image, Rule(32), "a")), np.array(image)[:, 32:64])


def test_crop_none_shows_the_whole_picture(noise):
    image = noise(90, 60)
    square = tensor(to_square(image, Rule(30, "none"), "a"))
    expected = F.interpolate(tensor(image), size=(30, 30), mode="bilinear", antialias=True, align_corners=False)
    assert (square - expected).abs().max() < 2


def test_random_crops_are_fixed_by_seed_and_sample_and_differ_between_samples(noise):
    image, rule = noise(64, 48), Rule(16, "random", seed=3)
    crops = {np.array(to_square(image, rule, f"sample {n}")).tobytes() for n in range(20)}
    assert len(crops) == 20
    assert np.array_equal(to_square(image, rule, "a"), to_square(image, rule, "a"))
    assert not np.array_equal(to_square(image, rule, "a"), to_square(image, Rule(16, "random", seed=4), "a"))


def test_random_crops_reach_every_border():
    ramp = Image.fromarray(np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (100, 1, 3)))
    lefts = [np.array(to_square(ramp, Rule(80, "random"), str(n)))[0, 0, 0] for n in range(200)]
    assert min(lefts) == 0
    assert max(lefts) >= 18    # without shrinking, the last possible left border is 20


def test_exif_orientation_is_applied(noise):
    image = noise(24, 16)
    exif = Image.Exif()
    exif[0x0112] = 6    # the camera was held so that rows run down the right side
    turned = decode(encoded(image, "PNG", exif=exif))
    assert np.array_equal(np.array(turned), np.rot90(np.array(image), -1))


def test_grey_is_repeated_and_sixteen_bits_keep_the_upper_eight(rng):
    levels = rng.integers(0, 65536, (8, 8), dtype=np.uint16)
    image = np.array(decode(encoded(Image.fromarray(levels))))
    assert image.shape == (8, 8, 3)
    assert np.array_equal(image[..., 0], np.round(levels / 257).astype(np.uint8))
    grey = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    assert np.array_equal(np.array(decode(encoded(Image.fromarray(grey)))), np.stack([grey] * 3, -1))


def test_transparent_parts_are_composited_on_white():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 3] = [0, 255, 0, 255]
    image = np.array(decode(encoded(Image.fromarray(pixels, "RGBA"))))
    assert (image[:, [0, 2]] == 255).all()
    assert (image[:, [1, 3]] == 0).all()


def test_palette_and_cmyk_become_rgb(noise):
    image = noise(16, 16)
    flat = Image.new("RGB", (16, 16), (200, 30, 90))
    assert decode(encoded(image.quantize(16))).mode == "RGB"
    cmyk = np.array(decode(encoded(flat.convert("CMYK"), "JPEG", quality=100))).astype(int)
    assert np.abs(cmyk - np.array(flat)).max() <= 4


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty file"),
        (b"hello, I am a text", "not an image of a known format"),
        (encoded(Image.new("RGB", (64, 64), "red"), "JPEG")[:300], "(?i)truncated"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating-point"),
    ],
)
def test_unusable_bytes_are_named_by_reason_without_memory_addresses(data, reason):
    with pytest.raises(UnusableImage, match=reason) as caught:
        decode(data)
    assert "0x" not in str(caught.value)


def test_a_header_that_states_too_many_pixels_is_refused_before_decoding():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 12000, 12000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(UnusableImage, match="decompression bomb"):
        decode(bomb)


def test_an_extremely_elongated_image_is_refused_before_it_fills_memory():
    with pytest.raises(UnusableImage, match="elongated"):
        to_square(Image.new("RGB", (1, 5000)), Rule(512), "a")


def test_png_is_lossless_and_jpeg_has_the_stated_quality(noise):
    image = noise(32, 32)
    assert np.array_equal(np.array(decode(encode(image, "png"))), np.array(image))
    ours, pillows = encode(image, "jpeg:75"), encoded(image, "JPEG", quality=75)
    assert Image.open(io.BytesIO(ours)).quantization == Image.open(io.BytesIO(pillows)).quantization
    assert len(encode(image, "jpeg:95")) > len(encode(image, "jpeg:75"))
    assert encode(image, "png") == encode(image, "png")


@pytest.mark.parametrize("wrong", [{"size": 4}, {"size": 64, "crop": "middle"}, {"size": 64, "image_format": "jpeg"},
                                   {"size": 64, "image_format": "jpeg:101"}, {"size": 64, "image_format": "webp"}])  # fmt: skip
def test_an_invalid_rule_is_a_recipe_error(wrong):
    with pytest.raises(RecipeError):
        Rule(**wrong)


@pytest.mark.parametrize("kind", ["text", "compressed text", "color profile"])
def test_large_text_and_profiles_of_a_png_do_not_hide_its_pixels(rng, kind):
    """Pillow refuses them: they could fill the memory when they are unpacked."""
    image = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    large, notes, options = "x" * 2**21, PngInfo(), {}
    if kind == "color profile":
        options["icc_profile"] = large.encode()
    else:
        notes.add_text("prompt", large, zip=kind == "compressed text")
    assert np.array_equal(np.array(decode(encoded(image, pnginfo=notes, **options))), np.array(image))
