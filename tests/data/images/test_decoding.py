"""Decoding of image files: modes, depths, orientation, color profiles, and what cannot be used."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from smtool.data.images.decoding import AS_STORED, CONVERTED, FIRST_FRAME, Reading, UnusableImage, decode, is_image, used_bits
from smtool.data.images.profiles import CONVERTED as PROFILE_CONVERTED
from smtool.data.images.profiles import UNUSABLE as PROFILE_UNUSABLE
from smtool.errors import RecipeError


def encoded(image, image_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def pixels(data, reading=CONVERTED):
    return np.array(decode(data, reading).image)


def test_exif_orientation_is_applied(noise):
    image = noise(24, 16)
    exif = Image.Exif()
    exif[0x0112] = 6    # the camera was held so that rows run down the right side
    turned = pixels(encoded(image, "PNG", exif=exif))
    assert np.array_equal(np.array(turned), np.rot90(np.array(image), -1))


def test_grey_is_repeated_and_sixteen_bits_keep_the_upper_eight(rng):
    levels = rng.integers(0, 65536, (8, 8), dtype=np.uint16)
    image = pixels(encoded(Image.fromarray(levels)))
    assert image.shape == (8, 8, 3)
    assert np.array_equal(image[..., 0], np.round(levels / 257).astype(np.uint8))
    grey = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    assert np.array_equal(pixels(encoded(Image.fromarray(grey))), np.stack([grey] * 3, -1))


def test_transparent_parts_are_composited_on_white():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 3] = [0, 255, 0, 255]
    image = pixels(encoded(Image.fromarray(rgba, "RGBA")))
    assert (image[:, [0, 2]] == 255).all()
    assert (image[:, [1, 3]] == 0).all()


def test_palette_and_cmyk_become_rgb(noise):
    image = noise(16, 16)
    flat = Image.new("RGB", (16, 16), (200, 30, 90))
    assert decode(encoded(image.quantize(16)), CONVERTED).image.mode == "RGB"
    cmyk = pixels(encoded(flat.convert("CMYK"), "JPEG", quality=100)).astype(int)
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
        decode(data, CONVERTED)
    assert "0x" not in str(caught.value)


def test_a_header_that_states_too_many_pixels_is_refused_before_decoding():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 12000, 12000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(UnusableImage, match="decompression bomb"):
        decode(bomb, CONVERTED)


@pytest.mark.parametrize("kind", ["text", "compressed text", "color profile"])
def test_large_text_and_profiles_of_a_png_do_not_hide_its_pixels(rng, kind):
    """Pillow refuses them: they could fill the memory when they are unpacked."""
    image = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    large, notes, options = "x" * 2**21, PngInfo(), {}
    if kind == "color profile":
        options["icc_profile"] = large.encode()
    else:
        notes.add_text("prompt", large, zip=kind == "compressed text")
    assert np.array_equal(pixels(encoded(image, pnginfo=notes, **options)), np.array(image))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_16_bits(levels):
    """A PNG of (H, W, 1 | 3 | 4) levels, written by hand: Pillow writes 16 bits for gray only."""
    height, width, channels = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_white_scales_levels_of_twelve_bits_and_keeps_all_of_them(rng, channels):
    levels = rng.integers(0, 4096, (9, 7, channels))
    levels[0, 0] = 4095
    if channels == 4:
        levels[..., 3] = 65535
    data = png_of_16_bits(levels)
    dark, bright = decode(data, CONVERTED), decode(data, Reading(white=4095))
    assert np.array(dark.image).max() <= 16
    assert dark.remarks == bright.remarks == ("16 bits a channel, 12 of them used",)
    expected = np.rint(levels[..., :3] * 255 / 4095)
    assert np.array_equal(np.array(bright.image)[..., : min(channels, 3)], expected)


def test_levels_above_white_become_white(rng):
    levels = rng.integers(0, 65536, (9, 7, 3))
    assert (pixels(png_of_16_bits(levels), Reading(white=1000))[levels >= 1000] == 255).all()


def test_images_that_reach_less_than_a_quarter_of_white_are_dark():
    def remarks(*bits):
        return {f"16 bits a channel, {n} of them used": 3 for n in bits}

    assert used_bits(remarks(12), 65535) == used_bits(remarks(10, 12), 65535) == 12
    assert used_bits(remarks(14), 65535) == 14
    assert used_bits(remarks(12, 16), 65535) == used_bits(remarks(15), 65535) == used_bits({}, 65535) == 0
    assert used_bits(remarks(12), 4095) == 0


def test_sixteen_bit_color_of_a_tiff_cannot_be_scaled(rng):
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, rng.integers(0, 4096, (9, 7, 3)).astype(np.uint16), photometric="rgb")
    assert decode(file.getvalue(), CONVERTED).remarks == ("16 bits a channel, 12 of them used",)
    with pytest.raises(UnusableImage, match="16-bit TIFF of mode RGB, of which only the upper 8 bits can be read"):
        decode(file.getvalue(), Reading(white=4095))


def profile_of(space, primaries=None, gamma=563 / 256):
    """A version 2 color profile, written by hand: one gamma, and for RGB the XYZ (D50) of its primaries."""

    def fixed(*values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79), b"wtpt": b"XYZ " + bytes(4) + fixed(*D50)}
    if space == "GRAY":
        tags[b"kTRC"] = curve
    else:
        for letter, xyz in zip("rgb", primaries, strict=True):
            tags[f"{letter}XYZ".encode()] = b"XYZ " + bytes(4) + fixed(*xyz)
            tags[f"{letter}TRC".encode()] = curve
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    size = start + len(data)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", space.ljust(4).encode(), b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + fixed(*D50) + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + data


D50 = (0.9642, 1.0, 0.8249)
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))  # XYZ of Adobe RGB (1998), D50
SRGB_OF_XYZ = np.array(
    [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
)


def in_srgb(linear):
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_color_profile_is_converted_to_srgb_by_its_matrix_and_curve(image_format):
    """Against the closed form: gamma 2.2, the primaries of Adobe RGB, the sRGB matrix of Lindbloom for D50, the sRGB curve."""
    colors = [(200, 120, 90), (90, 140, 160), (128, 128, 128), (60, 80, 70), (230, 225, 210)]
    stored = np.repeat(np.repeat(np.array(colors, np.uint8)[None], 16, 0), 16, 1)
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(image_format, {})
    data = encoded(Image.fromarray(stored), image_format, icc_profile=profile_of("RGB", ADOBE), **options)
    decoded = decode(data, CONVERTED)
    assert decoded.remarks == (PROFILE_CONVERTED,)
    xyz = (stored / 255.0) ** (563 / 256) @ np.array(ADOBE)
    difference = np.abs(np.array(decoded.image) - in_srgb(xyz @ SRGB_OF_XYZ.T))[8, 8::16]
    assert difference.max() <= (4 if image_format == "JPEG" else 1.5)
    assert np.abs(pixels(data, AS_STORED).astype(int) - stored).max() <= 2
    assert decode(data, AS_STORED).remarks == ()


def test_gray_with_a_profile_is_converted_and_transparency_is_kept(rng):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    gray = pixels(encoded(Image.fromarray(levels), icc_profile=profile_of("GRAY", gamma=1.8)))
    assert np.abs(gray[..., 0] - in_srgb((levels / 255.0) ** 1.8)).max() <= 2
    rgba = np.dstack([np.full((8, 8, 3), (200, 120, 90)), rng.integers(0, 2, (8, 8)) * 255]).astype(np.uint8)
    made = pixels(encoded(Image.fromarray(rgba), icc_profile=profile_of("RGB", ADOBE)))
    assert (made[rgba[..., 3] == 0] == 255).all()
    assert (made[rgba[..., 3] == 255] != rgba[0, 0, :3]).any()


def test_a_profile_that_equals_srgb_changes_nothing_and_a_wrong_one_is_said(noise):
    from PIL import ImageCms

    image = noise(24, 16)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = decode(encoded(image, icc_profile=srgb), CONVERTED)
    assert same.remarks == () and np.array_equal(np.array(same.image), np.array(image))
    for wrong in (b"no profile", profile_of("GRAY"), profile_of("RGB", ADOBE)[:200]):
        kept = decode(encoded(image, icc_profile=wrong), CONVERTED)
        assert kept.remarks == (PROFILE_UNUSABLE,) and np.array_equal(np.array(kept.image), np.array(image))


@pytest.mark.parametrize("image_format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_used_and_said(noise, image_format):
    frames = [noise(24, 16), noise(24, 16)]
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:])
    decoded = decode(data, CONVERTED)
    assert decoded.remarks == (FIRST_FRAME,) and decoded.image.size == (24, 16)


def test_what_begins_as_an_image_is_one_and_other_programs_are_not_started(noise):
    image = noise(24, 16)
    for image_format in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "JPEG2000"):
        assert is_image(encoded(image, image_format))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    for other in (b"", b"BM and more text", b"P1 is text", b"\x89PNG\r\n\x1a\n", postscript):
        assert not is_image(other)
    with pytest.raises(UnusableImage, match="not an image of a known format"):      # Pillow would start Ghostscript
        decode(postscript, CONVERTED)


@pytest.mark.parametrize("wrong", [{"icc": "srgb"}, {"white": 0}, {"white": 65536}])
def test_an_invalid_reading_is_a_recipe_error(wrong):
    with pytest.raises(RecipeError):
        Reading(**wrong)
