"""Images in loose files: all are used, or the reason is given; sizes are those of the upright pixels."""

import io
import os
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

from smtool.errors import DataError
from smtool.evaluation.image_sources import open_source
from smtool.image_shape import ImageSize

HEIGHT, WIDTH = 12, 20


def picture(key, mode="RGB", size=(WIDTH, HEIGHT)):
    return Image.fromarray(np.random.default_rng(key).integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(kind, **options):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(9), kind, exif=exif, **options)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def exif_after_the_pixels():
    """A PNG whose orientation comes after its pixels, as some cameras' tools write it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = encoded(picture(9))
    return plain[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + plain[-12:]


FILES = {
    "plain.png": encoded(picture(0)),
    "no-suffix": encoded(picture(1), "JPEG"),
    "upper.JPG": encoded(picture(2), "JPEG"),
    "a.jpe": encoded(picture(3), "JPEG"),
    "a.jfif": encoded(picture(4), "JPEG"),
    "a.tif": encoded(picture(5), "TIFF"),
    "sub/folder/deep.webp": encoded(picture(6), "WEBP"),
    "grey.png": encoded(picture(7, "L")),
    "palette.gif": encoded(picture(8, "P"), "GIF"),
    "turned.jpg": turned("JPEG"),
    "turned.png": turned("PNG"),
    "turned.webp": turned("WEBP"),
    "turned.tif": turned("TIFF"),
    "late.png": exif_after_the_pixels(),
    "opaque.png": encoded(picture(10, "RGBA")),
    **({"a.jp2": encoded(picture(11), "JPEG2000")} if features.check("jpg_2000") else {}),
    **({"a.avif": encoded(picture(12), "AVIF")} if features.check("avif") else {}),
}


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(data)
    return tmp_path / "all"


def images(source):
    return [image for part in source.read(range(source.count), 5) for image in part]


def upright(data):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def test_every_kind_of_image_is_used_at_its_upright_size(folder):
    source = open_source(str(folder))
    assert (source.count, source.left_out) == (len(FILES), {})
    found = {image.permute(1, 2, 0).numpy().tobytes() for image in images(source)}
    assert found == {upright(data).tobytes() for data in FILES.values()}
    sizes = [ImageSize(*image.shape[1:]) for image in images(source)]
    assert sizes == list(source.sizes)      # in the order of the images
    wide = sum(upright(data).shape[:2] == (HEIGHT, WIDTH) for data in FILES.values())
    assert source.sizes_of(source.count) == {ImageSize(HEIGHT, WIDTH): wide, ImageSize(WIDTH, HEIGHT): len(FILES) - wide}
    assert wide == len(FILES) - 5


def test_archives_of_the_same_files_give_the_same_images(folder, tmp_path):
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    with tarfile.open(tmp_path / "packed.tar", "w") as tar:
        tar.add(folder, ".")
    expected = images(open_source(str(folder)))
    for name in ("packed.zip", "packed.tar"):
        found = images(open_source(str(tmp_path / name)))
        assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_links_count_where_they_stand_and_circles_end(folder):
    (folder / "again").symlink_to(folder / "sub")
    (folder / "one.png").symlink_to(folder / "plain.png")
    (folder / "gone.png").symlink_to(folder / "missing.png")
    (folder / "sub" / "circle").symlink_to(folder)
    source = open_source(str(folder))
    assert source.count == len(FILES) + 2
    assert source.left_out == {"link to a folder that contains it": 2, "link to nothing": 1}
    assert len(images(source)) == source.count


def test_all_images_that_cannot_be_read_are_counted_by_reason(folder):
    whole = encoded(picture(0, size=(200, 200)), "JPEG")
    for number in range(3):
        (folder / f"cut{number}.jpg").write_bytes(whole[: len(whole) // 2 + number])
    for number in range(2):
        (folder / f"empty{number}.png").touch()
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError) as caught:
        open_source(str(folder))      # the empty ones are found by their headers, and all others with them
    message = caught.value.message
    reason = "3 cannot be decoded: image file is truncated (N bytes not processed)"
    assert f"6 of {len(FILES) + 6} images cannot be read: {reason}" in message
    assert "2 empty file (first: " in message and "1 not an image of a known format (first: photo.heic)" in message
    assert "--max-bad" in caught.value.hint


def test_images_whose_pixels_are_damaged_are_all_counted_when_they_are_read(folder):
    whole = encoded(picture(0, size=(200, 200)), "JPEG")
    for number in range(3):
        (folder / f"cut{number}.jpg").write_bytes(whole[: len(whole) // 2])
    source = open_source(str(folder))      # their headers are whole
    with pytest.raises(DataError, match=f"3 of {len(FILES) + 3} images cannot be read: 3 cannot be decoded: image file"):
        images(source)


def test_a_file_that_cannot_be_opened_is_counted_too(folder, monkeypatch):
    unreadable = folder / "plain.png"
    opened = open

    def refusing(path, *rest, **options):      # as for other users; root reads everything
        if os.fspath(path) == str(unreadable):
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest, **options)

    monkeypatch.setattr("builtins.open", refusing)
    with pytest.raises(DataError, match=r"1 of \d+ images cannot be read: .*Permission denied \(first: plain\.png\)"):
        open_source(str(folder))


def test_several_images_in_a_sample_of_a_shard_are_refused_with_the_way_on(tmp_path):
    with tarfile.open(tmp_path / "pairs.tar", "w") as tar:
        for number in range(2):
            for member in ("input.png", "mask.png", "cls"):
                data = b"1" if member == "cls" else encoded(picture(number))
                info = tarfile.TarInfo(f"{number}.{member}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError, match="2 of 2 samples hold several images") as caught:
        open_source(str(tmp_path / "pairs.tar"))
    assert caught.value.hint.startswith(f"Prepare {tmp_path / 'pairs.tar'} first, and pass the prepared folder. Choose one")


def test_a_folder_without_an_image_says_what_it_holds(tmp_path):
    Path(tmp_path / "a.pdf").touch()
    with pytest.raises(DataError, match=r"no images found, but 1 ending in \.pdf"):
        open_source(str(tmp_path))
