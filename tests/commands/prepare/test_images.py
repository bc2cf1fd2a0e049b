import hashlib
import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from smtool.commands.prepare.images import prepare
from smtool.data import open_images, read_card
from smtool.errors import DataError, RecipeError


@pytest.fixture
def photographs(tmp_path, rng):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(24):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return str(folder)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_prepared_folder_can_be_opened(tmp_path, photographs):
    steps = []
    out = prepare(photographs, out=tmp_path / "out", size=16, val_fraction=0.25, workers=1, report=lambda *s: steps.append(s))
    assert out == tmp_path / "out"
    assert steps == [(done, 24) for done in range(1, 25)]
    assert len(open_images(str(out), "train", image_size=16)) == 18
    assert len(open_images(str(out), "val", image_size=16)) == 6


def test_without_out_the_folder_is_named_after_source_and_size(tmp_path, photographs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(prepare(photographs, out=None, size=16, workers=1)) == "data/photographs-16"
    assert (tmp_path / "data" / "photographs-16" / "dataset.json").is_file()


def test_worker_processes_change_nothing(tmp_path, photographs):
    one = prepare(photographs, out=tmp_path / "one", size=16, workers=1, images_per_shard=7)
    two = prepare(photographs, out=tmp_path / "two", size=16, workers=2, images_per_shard=7)
    assert digests(one) == digests(two)


def test_format_crop_and_seed_reach_the_card_and_the_shards(tmp_path, photographs):
    out = prepare(photographs, out=tmp_path / "out", size=16, crop="random", image_format="jpeg:90", seed=5, workers=1)
    card = read_card(out)
    assert (card.crop, card.image_format, card.seed) == ("random", "jpeg:90", 5)
    other = prepare(photographs, out=tmp_path / "other", size=16, crop="random", image_format="jpeg:90", seed=6, workers=1)
    assert read_card(other).digest != card.digest


def test_the_command_prints_counts_classes_and_the_folder(tmp_path, photographs, command):
    (tmp_path / "photographs" / "broken.png").write_text("no image")
    folder = str(tmp_path / "out")
    options = ("--size", "16", "--split", "0.25", "--workers", "1", "--max-bad", "0.1")
    code, out, err = command("prepare", photographs, "--out", folder, *options)
    assert code == 0, err
    card = read_card(tmp_path / "out")
    found = f"{card.count('train')} images for training, {card.count('val')} for validation, no classes"
    price, jpeg = out.splitlines()[-3], card.jpeg
    assert price == (
        f"an image takes {jpeg.png_bytes / 1e3:.1f} kB as PNG; --format jpeg:95 would take {jpeg.jpeg_bytes / 1e3:.1f} kB, "
        f"PSNR {jpeg.psnr} dB (16 images)"
    )
    assert [*out.splitlines()[-4:-3], *out.splitlines()[-2:]] == [
        found, "left out: 1 (skipped.jsonl): 1 not an image of a known format", folder
    ]


def test_the_command_says_how_many_pictures_were_enlarged(tmp_path, command):
    (tmp_path / "pictures").mkdir()
    for number, side in enumerate((15, 16, 12)):
        Image.new("RGB", (20, side), (number, 0, 0)).save(tmp_path / "pictures" / f"{number}.png")
    options = ["--out", str(tmp_path / "out"), "--size", "16", "--workers", "1"]
    code, out, err = command("prepare", str(tmp_path / "pictures"), *options)
    assert code == 0, err
    count = read_card(tmp_path / "out").upscaled
    assert count == 2 and "2 of 3 images: smaller than 16 px, enlarged" in out.splitlines()


def test_dark_images_of_16_bits_are_said_with_the_option_that_shows_them(tmp_path, command):
    (tmp_path / "scans").mkdir()
    for number in range(4):
        levels = np.random.default_rng(number).integers(0, 4000, (16, 16)).astype(np.uint16)
        Image.fromarray(levels).save(tmp_path / "scans" / f"{number}.png")
    common = ("prepare", str(tmp_path / "scans"), "--size", "16", "--workers", "1")
    code, out, err = command(*common, "--out", str(tmp_path / "dark"))
    assert code == 0, err
    assert "4 of 4 images: 16 bits a channel, 12 of them used" in out
    assert "These images are dark: no level is above 4095. --white 4095 shows it as white." in out
    code, out, err = command(*common, "--out", str(tmp_path / "bright"), "--white", "4095")
    assert code == 0 and "dark" not in out.replace(str(tmp_path), "")
    dark, bright = (open_images(str(tmp_path / name), "train", image_size=16).read([0]).images for name in ("dark", "bright"))
    assert dark.max() < -0.87 and bright.max() > 0.9


def test_the_options_for_samples_and_profiles_reach_the_shards(tmp_path, command):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, color in (("a.v1.input.png", "red"), ("a.v1.mask.png", "blue"), ("b.v1.input.png", "red"), ("a.v1.cls", None)):
            data = io.BytesIO(b"3")
            if color:
                Image.new("RGB", (16, 16), color).save(data, "PNG")
            info = tarfile.TarInfo(name)
            info.size = len(data.getvalue())
            tar.addfile(info, io.BytesIO(data.getvalue()))
    (tmp_path / "x.tar").write_bytes(file.getvalue())
    common = ("prepare", str(tmp_path / "x.tar"), "--size", "16", "--split", "0")
    code, _, err = command(*common, "--out", str(tmp_path / "out"))
    assert code == 3 and "--member v1.input.png" in err and "--sample-key last-dot" in err
    code, out, err = command(*common, "--out", str(tmp_path / "out"), "--member", "v1.input.png", "--icc", "ignore")
    assert code == 0, err
    assert "2 images for training, 0 for validation, no classes (1 .cls member is not used, the first a.v1.cls" in out
    assert "1 not the member v1.input.png of its sample" in out and read_card(tmp_path / "out").icc == "ignore"
    code, out, err = command("prepare", str(tmp_path / "out"), "--latents", "x", "--white", "4095")
    assert code == 2 and "--white has no effect on a cache" in err


def test_names_that_are_not_utf8_are_written_out(tmp_path, command):
    folder = os.fsencode(tmp_path) + b"/source"
    for name in (b"caf\xe9/1.png", b"dog/2\xe9.png", b"dog/3.png"):
        os.makedirs(os.path.dirname(folder + b"/" + name), exist_ok=True)
        Image.new("RGB", (16, 16)).save(os.fsdecode(folder + b"/" + name))
    for name in (b"q\xe9.txt", b"dog/bad\xe9.png"):
        with open(folder + b"/" + name, "wb"):
            pass
    common = ("prepare", str(tmp_path / "source"), "--size", "16", "--out", str(tmp_path / "out"))
    code, _, err = command(*common)
    assert code == 3 and r"The first one: dog/bad\udce9.png." in err
    code, _, err = command(*common, "--max-bad", "0.5")
    assert code == 0, err
    assert read_card(tmp_path / "out").class_names == (r"caf\udce9", "dog")
    ids = [json.loads(line)["id"] for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert ids == [r"dog/bad\udce9.png", r"q\udce9.txt"]


@pytest.mark.parametrize(
    "wrong", [{"crop": "corner"}, {"image_format": "gif"}, {"size": 2}, {"val_fraction": 1.5}, {"max_bad": -0.1}]
)
def test_invalid_settings_are_recipe_errors_and_write_nothing(tmp_path, photographs, wrong):
    with pytest.raises(RecipeError):
        prepare(photographs, **{"out": tmp_path / "out", "size": 16, "workers": 1, **wrong})
    assert not (tmp_path / "out").exists()


def test_a_missing_source_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        prepare(str(tmp_path / "nothing"), out=tmp_path / "out", size=16)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("idle", [{"icc": "ignore"}, {"white": 4095}, {"labels": "none"}, {"label_column": "x"}])
def test_options_without_effect_on_built_in_images_are_refused(tmp_path, idle):
    with pytest.raises(RecipeError, match="have no effect on built-in images"):
        prepare("builtin:photos?train=2&val=2", out=tmp_path / "out", size=16, workers=1, **idle)
    assert not (tmp_path / "out").exists()
