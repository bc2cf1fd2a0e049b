"""One folder with everything that folders of images hold: the fate and the label of each file stand in a table."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

RNG = np.random.default_rng(0)
CAT, DOG, EMU = 0, 1, 2


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def rgb():
    return Image.fromarray(noise(20, 24, 3))


def file_of(image, image_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, kind, rows):
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def color_of_16_bits():
    return png(10, 10, 16, 2, b"".join(b"\0" + RNG.integers(0, 65536, 30).astype(">u2").tobytes() for _ in range(10)))


def with_text(text, *, zip):
    notes = PngInfo()
    notes.add_text("prompt", text, zip=zip)
    return file_of(rgb(), pnginfo=notes)


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(rgb(), "JPEG", exif=exif)


def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile_of_lab():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def frames(image_format):
    return file_of(rgb(), image_format, save_all=True, append_images=[rgb(), rgb()])


USED = {      # name -> (bytes, label)
    b"cat/gray.png": (file_of(Image.fromarray(noise(20, 24))), CAT),
    b"cat/bilevel.png": (file_of(rgb().convert("1")), CAT),
    b"cat/gray-alpha.png": (file_of(rgb().convert("LA")), CAT),
    b"cat/alpha.png": (file_of(Image.fromarray(noise(20, 24, 4))), CAT),
    b"cat/palette.png": (file_of(rgb().quantize(16)), CAT),
    b"cat/palette-transparent.png": (file_of(rgb().quantize(16), transparency=3), CAT),
    b"cat/cmyk.jpg": (file_of(rgb().convert("CMYK"), "JPEG"), CAT),
    b"cat/gray-16.png": (file_of(Image.fromarray(RNG.integers(0, 65536, (20, 24), dtype=np.uint16))), CAT),
    b"cat/color-16.png": (color_of_16_bits(), CAT),
    b"cat/a.jpeg": (file_of(rgb(), "JPEG"), CAT),
    b"cat/b.jpe": (file_of(rgb(), "JPEG"), CAT),
    b"cat/c.jfif": (file_of(rgb(), "JPEG"), CAT),
    b"cat/d.webp": (file_of(rgb(), "WEBP"), CAT),
    b"cat/e.avif": (file_of(rgb(), "AVIF"), CAT),
    b"cat/f.jp2": (file_of(rgb(), "JPEG2000"), CAT),
    b"cat/g.bmp": (file_of(rgb(), "BMP"), CAT),
    b"cat/h.tif": (file_of(rgb(), "TIFF"), CAT),
    b"cat/i.tiff": (file_of(rgb(), "TIFF", compression="tiff_lzw"), CAT),
    b"cat/j.gif": (file_of(rgb(), "GIF"), CAT),
    b"cat/k.ppm": (file_of(rgb(), "PPM"), CAT),
    b"cat/l.pgm": (file_of(rgb().convert("L"), "PPM"), CAT),
    b"cat/M.PNG": (file_of(rgb()), CAT),
    b"dog/without-suffix": (file_of(rgb()), DOG),
    b"dog/unknown.dat": (file_of(rgb(), "JPEG"), DOG),
    b"dog/number.0001": (file_of(rgb()), DOG),
    b"dog/jpeg-named.png": (file_of(rgb(), "JPEG"), DOG),
    b"dog/stereo.jpg": (file_of(rgb(), "MPO", save_all=True, append_images=[rgb()]), DOG),
    b"dog/rotated.jpg": (rotated(), DOG),
    b"dog/animated.gif": (frames("GIF"), DOG),
    b"dog/animated.webp": (frames("WEBP"), DOG),
    b"dog/pages.tif": (frames("TIFF"), DOG),
    b"dog/large-text.png": (with_text("x" * 2**21, zip=True), DOG),
    b"dog/small-text.png": (with_text("x" * 100, zip=False), DOG),
    b"dog/srgb.png": (file_of(rgb(), icc_profile=srgb_profile()), DOG),
    b"dog/adobe-rgb.jpg": (Path(skimage.data.__file__).with_name("rocket.jpg").read_bytes(), DOG),
    b"dog/other-profile.jpg": (file_of(rgb(), "JPEG", icc_profile=profile_of_lab()), DOG),
    b"dog/large-profile.png": (file_of(rgb(), icc_profile=b"x" * 2**21), DOG),
    "dog/Katze-\N{LATIN SMALL LETTER U WITH DIAERESIS}-\N{CAT FACE}.png".encode(): (file_of(rgb()), DOG),
    b"dog/not-utf8-\xe9.png": (file_of(rgb()), DOG),
    b"dog/-dash and space .png": (file_of(rgb()), DOG),
    b"dog/v1.0.final.png": (file_of(rgb()), DOG),
}
UNUSABLE = {      # name -> (bytes, beginning of the reason)
    b"cat/empty.png": (b"", "empty file"),
    b"cat/truncated.jpg": (file_of(rgb(), "JPEG")[:300], "cannot be decoded: "),
    b"cat/text.png": (b"this is a text", "not an image of a known format"),
    b"cat/float.tif": (file_of(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF"), "floating-point pixels"),
    b"dog/phone.heic": (b"\0\0\0\x18ftypheic", "not an image of a known format"),
    b"dog/drawing.svg": (b"<svg/>", "not an image of a known format"),
    b"dog/bomb.png": (png(12000, 12000, 8, 2, bytes(1000)), "12000x12000 pixels"),
}
LEFT_OUT = {      # name -> (bytes, None for what is made below, reason)
    b"notes.txt": (b"", "not an image (.txt)"),
    b"labels.json": (b"[]", "not an image (.json)"),
    b"README": (b"words", "not an image that can be read (without a suffix)"),
    b".DS_Store": (b"", "hidden"),
    b"cat/.hidden.png": (file_of(rgb()), "hidden"),
    b"__MACOSX": (None, "hidden folder"),
    b"cat/Thumbs.db": (b"", "not an image (.db)"),
    b"cat/weights.ckpt": (b"PK", "not an image that can be read (.ckpt)"),
    b"dog/more.zip": (b"PK", "not an image (.zip)"),
    b"dog/gone.png": (None, "link to nothing"),
    b"dog/circle": (None, "link to a folder that contains it"),
    b"dog/pipe.png": (None, "not a regular file"),
}
LINKED = {b"dog/link.png": DOG, b"dog/hard.png": DOG, b"emu/1.png": EMU}


def name_of(path):
    return os.fsdecode(path).encode(errors="backslashreplace").decode()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything") / "source"
    for part in ("cat", "dog", "__MACOSX", "../elsewhere"):
        (folder / part).mkdir(parents=True)
    for path, (data, _) in {**USED, **UNUSABLE, **LEFT_OUT}.items():
        if data is not None:
            Path(os.fsdecode(os.fsencode(folder) + b"/" + path)).write_bytes(data)
    (folder / "__MACOSX" / "._a.jpg").write_bytes(b"")
    (folder / "../elsewhere/1.png").write_bytes(file_of(rgb()))
    (folder / "emu").symlink_to(folder / "../elsewhere")
    (folder / "dog/link.png").symlink_to(folder / "../elsewhere/1.png")
    (folder / "dog/hard.png").hardlink_to(folder / "cat/gray.png")
    (folder / "dog/gone.png").symlink_to(folder / "nothing.png")
    (folder / "dog/circle").symlink_to(folder)
    os.mkfifo(folder / "dog/pipe.png")
    return folder


def prepare(source, out, *options):
    command = [sys.executable, "-m", "smtool", "prepare", source, "--size", "16", "--out", out, "--max-bad", "0.2", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def shown(folder):
    """Name in the source -> label, of every sample in the shards."""
    samples = {}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}
        for name, data in files.items():
            if name.endswith(".json"):
                samples[name_of(json.loads(data)["id"])] = int(files[name.replace(".json", ".cls")])
    return samples


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    return out, prepare(source, out)


def test_every_file_has_the_fate_and_the_label_of_the_table(source, prepared):
    out, said = prepared
    labels = {name_of(name): label for name, label in {**{name: label for name, (_, label) in USED.items()}, **LINKED}.items()}
    assert shown(out) == labels
    lines = {line["id"]: line["reason"] for line in map(json.loads, (out / "skipped.jsonl").read_text().splitlines())}
    assert lines.keys() == {name_of(name) for name in (*UNUSABLE, *LEFT_OUT)}
    for name, (_, reason) in {**UNUSABLE, **LEFT_OUT}.items():
        assert lines[name_of(name)].startswith(reason), name
    assert len(labels) + len(lines) == len(USED) + len(LINKED) + len(UNUSABLE) + len(LEFT_OUT) == 63
    card = json.loads((out / "dataset.json").read_text())
    assert card["class_names"] == ["cat", "dog", "emu"] and card["unlabelled"] == ""
    assert card["source"]["images"] == len(labels) + len(UNUSABLE) and card["skipped"] == len(UNUSABLE)
    assert sum(card["left_out"].values()) == len(lines)
    assert card["left_out"]["not an image of a known format"] == 3 and card["left_out"]["hidden"] == 2
    assert card["remarks"] == {
        "16 bits a channel, 16 of them used": 2,
        "a color profile that cannot be used, ignored": 1,
        "another color profile, converted to sRGB": 1,
        "several frames or pages, the first is used": 3,
    }
    train, val = (sum(shard["images"] for shard in card[split]) for split in ("train", "val"))
    assert train + val == len(labels)
    assert f"{train} images for training, {val} for validation, 3 classes" in said
    assert f"left out: {len(lines)} (skipped.jsonl): 3 not an image of a known format; 2 hidden; " in said


def test_one_and_four_workers_and_two_runs_write_the_same_bytes(source, prepared, tmp_path):
    for workers in ("1", "4"):
        prepare(source, tmp_path / workers, "--workers", workers)
        assert contents(tmp_path / workers) == contents(prepared[0])


def test_a_killed_run_writes_the_same_bytes_after_it_is_repeated(source, prepared, tmp_path):
    code = f"""
import os, signal
from smtool.commands.prepare.images import prepare
from pathlib import Path
prepare({str(source)!r}, out=Path({str(tmp_path / "out")!r}), size=16, max_bad=0.2, workers=1,
        report=lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == 20 else None)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "dataset.json").exists()
    prepare(source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(prepared[0])
