import hashlib

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
    assert out.splitlines()[-2:] == [f"{found}, 1 left out (skipped.jsonl)", folder]


def test_the_command_says_how_many_pictures_were_enlarged(tmp_path, photographs, command):
    code, out, err = command("prepare", photographs, "--out", str(tmp_path / "out"), "--size", "512", "--workers", "1")
    assert code == 0, err
    count = read_card(tmp_path / "out").upscaled
    assert count > 0 and f", {count} enlarged to 512 px" in out


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
