"""Parquet and Arrow tables of images: columns, labels, splits, damage, and rows without an image. Files are pyarrow's own."""

import io
import json
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from smtool.data.images.card import read_card
from smtool.data.images.columns import LabelRule
from smtool.data.images.decoding import AS_STORED, UnusableImage
from smtool.data.images.listing import list_entries
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule
from smtool.errors import DataError, RecipeError

PAIR = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def metadata(**features):
    return {"huggingface": json.dumps({"info": {"features": features}})}


def classes(*names):
    return {"_type": "ClassLabel", "names": list(names)}


def listed(source, tmp_path, **rule):
    return list_entries(find_source(str(source)), size=0, scratch=tmp_path / "scratch", labels=LabelRule(**rule))


def pixels(entry):
    return np.asarray(entry.place.decoded(AS_STORED).image)


def expected(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture
def data(photo_bytes):
    return [photo_bytes(number) for number in range(10)]


@pytest.fixture(params=["parquet", "arrow", "arrow file", "arrow compressed"])
def write(request):
    """write(stem, columns, types, metadata, rows of a group): write a table and return its path."""

    def table(stem, columns, types=None, metadata=None, rows=3):
        fields = {name: (types or {}).get(name) or pyarrow.array(values).type for name, values in columns.items()}
        content = pyarrow.table(columns, pyarrow.schema(list(fields.items()), metadata))
        path = stem.with_suffix(f".{request.param.split()[0]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if request.param == "parquet":
            pyarrow.parquet.write_table(content, path, row_group_size=rows)
            return path
        opened = pyarrow.ipc.new_file if request.param == "arrow file" else pyarrow.ipc.new_stream
        options = pyarrow.ipc.IpcWriteOptions(compression="zstd" if request.param == "arrow compressed" else None)
        with opened(str(path), content.schema, options=options) as writer:
            writer.write_table(content, max_chunksize=rows)
        return path

    return table


@pytest.mark.parametrize("kind", ["pair", "large pair", "bytes", "large bytes", "view"])
def test_images_are_bytes_alone_or_with_a_path(tmp_path, write, data, kind):
    types = {
        "pair": PAIR, "large pair": pyarrow.struct([("path", pyarrow.large_string()), ("bytes", pyarrow.large_binary())]),
        "bytes": pyarrow.binary(), "large bytes": pyarrow.large_binary(), "view": pyarrow.binary_view(),
    }    # fmt: skip
    values = [{"bytes": each, "path": None} for each in data] if "pair" in kind else data
    path = write(tmp_path / "photos", {"picture": values, "note": ["-"] * 10}, {"picture": types[kind]})
    listing = listed(path, tmp_path)
    assert [entry.id for entry in listing.entries] == [f"{path.name}/{row:08d}" for row in range(10)]
    assert all(np.array_equal(pixels(entry), expected(each)) for entry, each in zip(listing.entries, data, strict=True))
    assert "no column of labels" in listing.unlabelled and "picture, note" in listing.unlabelled


def test_paths_are_read_relative_to_the_table_and_not_outside_of_its_folder(tmp_path, write, data):
    (tmp_path / "set" / "deep").mkdir(parents=True)
    (tmp_path / "set" / "deep" / "a.png").write_bytes(data[0])
    (tmp_path / "outside.png").write_bytes(data[1])
    names = ["deep/a.png", "../outside.png", str(tmp_path / "outside.png"), "none.png", "deep\\a.png"]
    path = write(tmp_path / "set" / "index", {"file_name": names})
    entries = listed(path, tmp_path).entries
    assert np.array_equal(pixels(entries[0]), expected(data[0])) and np.array_equal(pixels(entries[4]), expected(data[0]))
    for entry, words in zip(entries[1:4], ["outside the folder", "outside the folder", "is missing"], strict=True):
        with pytest.raises(UnusableImage, match=words):
            pixels(entry)


def test_a_folder_of_images_and_a_table_that_names_them_is_the_table(tmp_path, write, data):
    for number, each in enumerate(data[:4]):
        (tmp_path / "set" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "images" / f"{number}.png").write_bytes(each)
    rows = [{"bytes": None, "path": f"images/{number}.png"} for number in range(3)]
    write(tmp_path / "set" / "train", {"image": rows, "label": ["b", "a", "b"]}, {"image": PAIR})
    listing = listed(tmp_path / "set", tmp_path)
    assert [entry.label for entry in listing.entries] == [1, 0, 1] and listing.class_names == ("a", "b")
    assert listing.left_out == (("images/3.png", "an image file that no row of the tables names"),)
    before = find_source(str(tmp_path / "set")).digest()
    (tmp_path / "set" / "images" / "0.png").write_bytes(data[0] + b"\0")
    assert find_source(str(tmp_path / "set")).digest() != before


def test_images_beside_a_table_of_other_images_are_an_error_and_beside_other_tables_the_source(tmp_path, write, data):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "logo.png").write_bytes(data[0])
    path = write(tmp_path / "set" / "vectors", {"embedding": [1.0, 2.0], "path": ["logo.png", "x.png"]})
    listing = listed(tmp_path / "set", tmp_path)
    assert [entry.id for entry in listing.entries] == ["logo.png"]
    assert listing.unlabelled == f"{path.name} is not read: a table is a source of its own"
    path.unlink()
    path = write(tmp_path / "set" / "train", {"image": data[1:4]})
    with pytest.raises(DataError, match=r"1 tables of images and 1 image files, the first logo\.png"):
        listed(tmp_path / "set", tmp_path)
    assert len(listed(path, tmp_path).entries) == 3


def test_a_row_without_an_image_is_listed_as_unusable(tmp_path, write, data):
    rows = [{"bytes": each, "path": None} for each in data[:8]]
    path = write(tmp_path / "photos", {"image": [*rows, None, {"bytes": None, "path": None}]}, {"image": PAIR})
    out = tmp_path / "out"
    preparation = Preparation(find_source(str(path)), Rule(8))
    with pytest.raises(DataError, match=r"2 of 10 images cannot be used.*the row holds no image"):
        prepare_images(preparation, out, workers=1)
    card = prepare_images(preparation, out, workers=2, max_bad=0.2)
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert sorted(line["id"] for line in skipped) == [f"{path.name}/{row:08d}" for row in (8, 9)]
    assert card.skipped == 2 and card.count("train") + card.count("val") == 8


def test_declared_classes_give_names_and_numbers(tmp_path, write, data):
    said = metadata(image={"_type": "Image"}, kind=classes("zebra", "ant", "bee"), caption={"_type": "Value"})
    path = write(tmp_path / "set", {"image": data[:3], "kind": [0, 2, 2], "caption": ["-"] * 3}, metadata=said)
    listing = listed(path, tmp_path)
    assert listing.class_names == ("zebra", "ant", "bee") and [entry.label for entry in listing.entries] == [0, 2, 2]
    path = write(tmp_path / "set", {"image": data[:3], "kind": [0, 3, 2]}, metadata=said)
    with pytest.raises(DataError, match=r"label '3' of .*00000001 is not a class number from 0 to 2"):
        listed(path, tmp_path)


@pytest.mark.parametrize(("values", "labels", "names"), [
    ([4, 0, 4], [4, 0, 4], ()),
    (["b", "a", "b"], [1, 0, 1], ("a", "b")),
    (["10", "9", "10"], [10, 9, 10], ()),
    (["010", "9", "010"], [0, 1, 0], ("010", "9")),
    (pyarrow.array(["b", "a", "b"]).dictionary_encode(), [1, 0, 1], ("a", "b")),
])  # fmt: skip
def test_labels_without_declared_classes_are_numbers_or_names(tmp_path, write, data, values, labels, names):
    listing = listed(write(tmp_path / "set", {"image": data[:3], "label": values}), tmp_path)
    assert [entry.label for entry in listing.entries] == labels and listing.class_names == names


def test_missing_labels_are_an_error_or_a_reason(tmp_path, write, data):
    path = write(tmp_path / "set", {"image": data[:3], "label": [1, None, -1]})
    said = r"2 of 3 images have no label in column label, the first .*/00000001\.[\s\S]*--labels none"
    with pytest.raises(DataError, match=said):
        listed(path, tmp_path)
    unlabelled = listed(path, tmp_path, labels="none")
    assert {entry.label for entry in unlabelled.entries} == {None} and unlabelled.unlabelled == "--labels none"
    path = write(tmp_path / "set", {"image": data[:3], "label": [-1, -1, -1]})
    assert listed(path, tmp_path).unlabelled == "no image has a label in column label"
    path = write(tmp_path / "set", {"image": data[:3], "label": [0.5, 1.0, 1.5]})
    assert "column label of" in (reason := listed(path, tmp_path).unlabelled) and "holds double, not classes" in reason


def test_several_columns_are_an_error_that_names_them_and_can_be_chosen(tmp_path, write, data):
    said = metadata(input={"_type": "Image"}, mask={"_type": "Image"}, fine=classes("a", "b"), coarse=classes("x"))
    columns = {"input": data[:2], "mask": data[2:4], "fine": [0, 1], "coarse": [0, 0], "text": ["p", "q"], "size": [1.0, 2.0]}
    path = write(tmp_path / "set", columns, metadata=said)
    with pytest.raises(DataError, match=r"2 columns of images: input, mask\.[\s\S]*--image-column input"):
        listed(path, tmp_path)
    with pytest.raises(DataError, match=r"2 columns of labels: fine, coarse\.[\s\S]*--label-column fine; or --labels none"):
        listed(path, tmp_path, image_column="mask")
    listing = listed(path, tmp_path, image_column="mask", label_column="fine")
    assert np.array_equal(pixels(listing.entries[0]), expected(data[2]))
    assert [entry.label for entry in listing.entries] == [0, 1] and listing.class_names == ("a", "b")
    assert listed(path, tmp_path, image_column="input", label_column="text").class_names == ("p", "q")
    with pytest.raises(RecipeError, match=r"--image-column nothing: set\S* has no such column\.[\s\S]*input, mask, fine"):
        listed(path, tmp_path, image_column="nothing")
    with pytest.raises(DataError, match="column fine holds int64, not images"):
        listed(path, tmp_path, image_column="fine")
    with pytest.raises(DataError, match="column size holds double, not classes"):
        listed(path, tmp_path, image_column="mask", label_column="size")
    with pytest.raises(DataError, match="--labels folders has no effect on tables"):
        listed(path, tmp_path, image_column="mask", labels="folders")


def test_a_table_without_images_is_an_error_that_names_its_columns(tmp_path, write):
    with pytest.raises(DataError, match=r"no column of images; Its columns are a, b\."):
        listed(write(tmp_path / "set", {"a": [1], "b": ["x"]}), tmp_path)


@pytest.mark.parametrize("names", [
    {"train": "train-00000-of-00001", "val": "validation-00000-of-00001", "other": "test-00000-of-00001"},
    {"train": "train/0000", "val": "validation/0000", "other": "test/0000"},
    {"train": "train/train-00000", "val": "validation/validation-00000", "other": "test/test-00000"},
])  # fmt: skip
def test_splits_come_from_the_names_of_files_or_folders(tmp_path, write, data, names):
    for split, name in names.items():
        values = {"train": [0, 1, 0], "val": [1, 1, 0], "other": [-1, -1, -1]}[split]
        write(tmp_path / "set" / "data" / name, {"image": data[:3], "label": values})
    listing = listed(tmp_path / "set", tmp_path)
    assert [entry.split for entry in listing.entries] == ["train"] * 3 + ["val"] * 3
    assert [entry.label for entry in listing.entries] == [0, 1, 0, 1, 1, 0]
    assert [other.reason for other in listing.left_out] == ["split test: validation is used for validation"] * 3


def test_files_that_differ_or_are_missing_are_errors(tmp_path, write, data):
    folder = tmp_path / "set"
    first = write(folder / "train-00000-of-00003", {"image": data[:3], "label": [0, 1, 0]})
    second = write(folder / "train-00001-of-00003", {"image": data[3:6], "label": [0, 1, 0]})
    with pytest.raises(DataError, match=r"1 of 3 files of train are missing, the first train-00002-of-00003"):
        listed(folder, tmp_path)
    assert len(listed(folder / f"*{first.suffix}", tmp_path).entries) == 6
    write(folder / "train-00001-of-00003", {"image": data[3:6], "kind": [0, 1, 0]})
    with pytest.raises(DataError, match="differ in their labels: column label and no column"):
        listed(folder / f"*{first.suffix}", tmp_path)
    said = [metadata(label=classes(*names)) for names in ("ab", "ba")]
    for path, each in zip((first, second), said, strict=True):
        write(path.with_suffix(""), {"image": data[:3], "label": [0, 1, 0]}, metadata=each)
    with pytest.raises(DataError, match="differ in their names of classes: a, b and b, a"):
        listed(folder / f"*{first.suffix}", tmp_path)


def test_configurations_of_a_data_set_are_not_mixed(tmp_path, write, data):
    for name in ("large/train", "small/train"):
        write(tmp_path / "set" / name, {"image": data[:3]})
    with pytest.raises(DataError, match=r"tables in 2 folders that are no splits, such as large and small"):
        listed(tmp_path / "set", tmp_path)
    assert len(listed(tmp_path / "set" / "*" / "*", tmp_path).entries) == 6


def test_a_table_that_was_cut_off_is_an_error(tmp_path, write, data):
    path = write(tmp_path / "set", {"image": data, "label": [0] * 10}, rows=2)
    whole = path.read_bytes()
    for length in (0, 3, 8, len(whole) // 3, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="not a complete table"):
            listed(path, tmp_path)


def test_changed_bytes_are_never_a_crash(tmp_path, write, data, rng):
    path = write(tmp_path / "set", {"image": [{"bytes": each, "path": "x"} for each in data], "label": [0] * 10}, {"image": PAIR})
    whole = bytearray(path.read_bytes())
    for attempt in range(60):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            broken[place] = rng.integers(256)
        if attempt % 2:      # the description of the columns, at the beginning or at the end
            broken[-int(rng.integers(1, 400))] = rng.integers(256)
            broken[int(rng.integers(0, 400))] = rng.integers(256)
        path.write_bytes(broken)
        try:
            for entry in listed(path, tmp_path / str(attempt)).entries:
                pixels(entry)
        except (DataError, UnusableImage):
            continue


def test_a_parquet_file_that_expands_a_hundredfold_is_refused(tmp_path, photo_bytes):
    path = tmp_path / "bomb.parquet"
    block = bytes(2**20)
    pyarrow.parquet.write_table(pyarrow.table({"image": [block] * 200}), path, compression="zstd")
    with pytest.raises(DataError, match="decompression bomb"):
        listed(path, tmp_path)


def saved(folder, data, names=("data-00000-of-00001.arrow",), **state):
    folder.mkdir(parents=True)
    for name in names:
        with pyarrow.ipc.new_stream(str(folder / name), (content := pyarrow.table({"image": data})).schema) as writer:
            writer.write_table(content)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], **state}))


def test_a_saved_dictionary_of_splits_and_what_is_beside_its_files(tmp_path, data):
    saved(tmp_path / "set" / "train", data[:4])
    saved(tmp_path / "set" / "test", data[4:6])
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (tmp_path / "set" / "train" / "cache-12.arrow").write_bytes(b"half a file")
    listing = listed(tmp_path / "set", tmp_path)
    assert [(entry.id, entry.split) for entry in listing.entries if entry.split == "val"] == [
        (f"test/data-00000-of-00001.arrow/{row:08d}", "val") for row in range(2)
    ]
    assert len(listing.entries) == 6
    assert listing.left_out == (("train/cache-12.arrow", "not named in state.json"),)
    for path in (tmp_path / "set" / "test").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"state\.json is missing: dataset_dict\.json names split test"):
        listed(tmp_path / "set", tmp_path)


@pytest.mark.parametrize(("state", "words"), [
    ({"_data_files": [{"filename": "data-1.arrow"}]}, "data-1.arrow is missing, which state.json names"),
    ({"_data_files": []}, "names no Arrow files"),
    ({"_data_files": [{"filename": 3}]}, "names no Arrow files"),
    ({"_indices_data_files": [{"filename": "indices.arrow"}]}, "a selection of its rows"),
])  # fmt: skip
def test_a_saved_data_set_that_is_not_whole_is_an_error(tmp_path, data, state, words):
    saved(tmp_path / "set", data[:2], **state)
    with pytest.raises(DataError, match=words):
        listed(tmp_path / "set", tmp_path)


def test_without_pyarrow_the_error_names_the_extra(tmp_path, data, monkeypatch):
    pyarrow.parquet.write_table(pyarrow.table({"image": data}), tmp_path / "set.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(DataError, match=r"pyarrow is not installed here\.\s+pip install 'smtool\[parquet\]'") as caught:
        listed(tmp_path / "set.parquet", tmp_path)
    assert caught.value.exit_code == 3


def test_columns_of_other_sources_are_refused(tmp_path, photo_folder):
    with pytest.raises(RecipeError, match="is not a table"):
        listed(photo_folder(3), tmp_path, image_column="image")
    with pytest.raises(RecipeError, match="no table and no label file"):
        listed(tmp_path / "photographs", tmp_path, label_column="label")


def test_prepared_tables_are_recognized_and_other_columns_are_other_data(tmp_path, data):
    path = tmp_path / "set.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": data[:5], "b": data[5:], "label": list("xyxyx")}), path, row_group_size=2)
    chosen = {name: Preparation(find_source(str(path)), Rule(8), labels=LabelRule(image_column=name)) for name in "ab"}
    card = prepare_images(chosen["a"], tmp_path / "out", workers=1)
    assert prepare_images(chosen["a"], tmp_path / "out", workers=1) == card == read_card(tmp_path / "out")
    assert card.class_names == ("x", "y") and not (tmp_path / "out" / ".unfinished").exists()
    with pytest.raises(DataError, match="other settings"):
        prepare_images(chosen["b"], tmp_path / "out", workers=1)


def test_a_name_of_a_column_that_is_not_text_is_an_error(tmp_path, data):
    path = tmp_path / "set.arrow"
    with pyarrow.ipc.new_stream(str(path), (table := pyarrow.table({"abcimage": data, "label": [0] * 10})).schema) as writer:
        writer.write_table(table)
    whole = path.read_bytes()
    assert whole.count(b"abcimage") == 1
    path.write_bytes(whole.replace(b"abcimage", b"abc\xff\xfe\xfd\xfc\xfb"))
    with pytest.raises(DataError, match="not a complete table"):
        listed(path, tmp_path)
