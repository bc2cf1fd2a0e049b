import hashlib
import io
import json
import tarfile
import zlib

import numpy as np
import pytest
import webdataset
from PIL import Image

from smtool.data import open_images
from smtool.data.images.card import read_card
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.shards import read_index
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule
from smtool.errors import DataError


@pytest.fixture
def folder(tmp_path, photo_bytes):
    """Ten images of two classes, in two shards of training images and one for validation."""
    for number in range(10):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo_bytes(number))
    preparation = Preparation(find_source(str(tmp_path / "pets")), Rule(16), val_fraction=0.2, images_per_shard=5)
    prepare_images(preparation, tmp_path / "out", workers=1)
    return tmp_path / "out"


def test_webdataset_reads_the_shards(folder, tmp_path):
    card = read_card(folder)
    urls = [str(folder / shard.name) for shard in card.train]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"{number:08d}" for number in range(8)]
    for sample in samples:
        assert sample["png"].shape == (16, 16, 3)
        name = sample["json"]["id"]
        assert sample["cls"] == card.class_names.index(name.split("/")[0])
        assert (sample["json"]["width"], sample["json"]["height"]) == (40, 32)
        with Image.open(tmp_path / "pets" / name) as image:    # 40 x 32 -> 20 x 16 -> the middle
            halved = image.convert("RGB").resize((20, 16), Image.Resampling.BOX)
        assert np.array_equal(sample["png"], np.array(halved)[:, 2:18])


def test_the_index_points_at_each_images_bytes(folder):
    for shard in read_card(folder).train:
        rows, data = read_index(folder, shard), (folder / shard.name).read_bytes()
        with tarfile.open(folder / shard.name) as tar:
            images = [member for member in tar if member.name.endswith(".png")]
        assert [f"{row['key']:08d}.png" for row in rows] == [member.name for member in images]
        assert [(row["offset"], row["bytes"]) for row in rows] == [(member.offset_data, member.size) for member in images]
        for row in rows:
            piece = data[row["offset"] : row["offset"] + row["bytes"]]
            assert zlib.crc32(piece) == row["crc32"]
            assert Image.open(io.BytesIO(piece)).size == (16, 16)


def test_members_have_no_time_and_no_owner(folder):
    with tarfile.open(folder / "train-000000.tar") as tar:
        headers = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar}
    assert headers == {(0, 0, 0, "", "", 0o444)}


def test_the_card_states_what_is_on_disk(folder):
    card, written = read_card(folder), json.loads((folder / "dataset.json").read_text())
    assert (card.num_classes, card.class_names, card.count("train"), card.count("val")) == (2, ("cat", "dog"), 8, 2)
    for shard in card.train + card.val:
        assert shard.bytes == (folder / shard.name).stat().st_size
    assert [shard["images"] for shard in written["train"]] == [5, 3]
    assert card.split_digest("train") != card.split_digest("val") != card.digest


def test_an_index_that_was_changed_is_named(folder):
    (folder / "train-000001.npy").write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(DataError, match=r"train-000001\.npy: damaged"):
        read_index(folder, read_card(folder).train[1])


@pytest.mark.parametrize("change", [{"image_size": "large"}, {"colour": "blue"}, {"train": [{"name": "x"}]}])
def test_the_error_of_an_invalid_card_names_the_key(folder, change):
    card = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**card, **change}))
    with pytest.raises(DataError, match=rf"dataset\.json: {next(iter(change))}"):
        read_card(folder)


def test_the_error_of_a_truncated_card_names_it(folder):
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"dataset\.json"):
        read_card(folder)


def rewritten(folder, change):
    """Change the rows of the first training index, and state the new sha256 in the card, as a tool that writes both would."""
    path = folder / "train-000000.npy"
    rows = np.load(path)
    made = change(rows)
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        np.save(path, rows if made is None else made)
    card = json.loads((folder / "dataset.json").read_text())
    card["train"][0]["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(card))


def put(field, value):
    def change(rows):
        rows[field][1] = value

    return change


@pytest.mark.parametrize(("change", "said"), [
    (lambda rows: b"", r"train-000000\.npy: damaged shard: it is not an index \(EOFError\)"),
    (lambda rows: b"\x93NUMPY\x01\x00\x04\x00{(((", "it is not an index"),
    (lambda rows: rows[:-1], "it does not hold the 5 rows of an index"),
    (lambda rows: rows["key"], "it does not hold the 5 rows of an index"),
    (put("offset", 2**64 - 1), "it has a row that lies outside the shard"),
    (put("bytes", 2**32 - 1), "it has a row that lies outside the shard"),
    (put("label", 2), r"dataset\.json: damaged shard: the shards hold a label that is not among its 2"),
    (put("group", 0), "the shards hold a group that is not among its 0"),
])  # fmt: skip
def test_an_index_that_does_not_fit_its_card_is_named(folder, change, said):
    rewritten(folder, change)
    with pytest.raises(DataError, match=said):
        open_images(str(folder), "train", image_size=16)


@pytest.mark.parametrize("change", [
    {"image_size": 8}, {"image_size": [16, 8]}, {"mode": "L"}, {"image_size": 0}, {"image_size": -16}, {"image_size": 32000},
    {"images": -5}, {"images": True}, {"bytes": -1}, {"name": "../train-000000.tar"}, {"name": "a/b.tar"},
])  # fmt: skip
def test_a_card_that_denies_its_shards_is_named(folder, change):
    card = json.loads((folder / "dataset.json").read_text())
    (card if set(change) & card.keys() else card["train"][0]).update(change)
    (folder / "dataset.json").write_text(json.dumps(card))
    size = change.get("image_size", 16)
    with pytest.raises(DataError, match=r"dataset\.json|train-000000\.tar"):
        open_images(str(folder), "train", image_size=16 if size in (0, -16, 32000) else size).read([0])


def test_an_index_of_bytes_that_are_no_image_is_named(folder):
    def change(rows):
        rows["bytes"][1] = rows["crc32"][1] = 0

    rewritten(folder, change)
    with pytest.raises(DataError, match=r"train-000000\.tar: damaged shard: the bytes of an image are no image"):
        open_images(str(folder), "train", image_size=16).read([1])
