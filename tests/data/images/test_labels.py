"""Labels from files beside the images, in folders, zip and tar; and what happens where they do not fit the images."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from smtool.data.images.card import is_prepared
from smtool.data.images.columns import LabelRule
from smtool.data.images.listing import list_entries
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule
from smtool.errors import DataError, RecipeError


@pytest.fixture
def png(photo_bytes):
    return photo_bytes(0)


@pytest.fixture(params=["folder", "zip", "tar"])
def pack(request, tmp_path, png):
    """pack(names of images, {name: text or bytes of another file}): write a source and return its path."""

    def write(images, files):
        members = dict.fromkeys(images, png) | {
            name: content.encode() if isinstance(content, str) else content for name, content in files.items()
        }
        source = tmp_path / f"source.{request.param}"
        if request.param == "folder":
            for name, content in members.items():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_bytes(content)
        elif request.param == "zip":
            with zipfile.ZipFile(source, "w") as archive:
                for name, content in members.items():
                    archive.writestr(name, content)
        else:
            with tarfile.open(source, "w") as tar:
                for name, content in members.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        return source

    return write


def listed(source, tmp_path, **rule):
    return list_entries(find_source(str(source)), size=0, scratch=tmp_path / "scratch", labels=LabelRule(**rule))


def labels(listing):
    return {entry.id: listing.class_names[entry.label] if listing.class_names else entry.label for entry in listing.entries}


def rows(kind, *pairs, column="label"):
    """A metadata file of this kind with (file name, label) pairs."""
    if kind == "csv":
        return "\n".join([f"file_name,{column}", *(f"{name},{'' if label is None else label}" for name, label in pairs)])
    if kind == "jsonl":
        return "\n".join(json.dumps({"file_name": name, column: label}) for name, label in pairs)
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"file_name": [pair[0] for pair in pairs], column: [p[1] for p in pairs]}), file)
    return file.getvalue()


KINDS = ("csv", "jsonl", "parquet")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("first", "second"), [("dog", "cat"), (7, 3)])
def test_a_metadata_file_gives_the_labels(tmp_path, pack, kind, first, second):
    pairs = [("a.png", first), ("./deep/b.png", second), ("c.png", first)]
    listing = listed(pack(["a.png", "deep/b.png", "c.png"], {f"metadata.{kind}": rows(kind, *pairs)}), tmp_path)
    assert labels(listing) == {"a.png": first, "deep/b.png": second, "c.png": first}
    assert listing.unlabelled == "" and listing.left_out == ()


def test_each_split_has_a_file_of_its_own(tmp_path, pack):
    files = {f"{split}/metadata.csv": rows("csv", ("a.png", one), ("b.png", two))
             for split, one, two in (("train", "cat", "dog"), ("val", "dog", "dog"), ("test", "emu", "emu"))}
    listing = listed(pack([f"{split}/{name}.png" for split in ("train", "val", "test") for name in "ab"], files), tmp_path)
    assert labels(listing) == {"train/a.png": "cat", "train/b.png": "dog", "val/a.png": "dog", "val/b.png": "dog"}
    assert listing.class_names == ("cat", "dog") and {entry.split for entry in listing.entries} == {"train", "val"}
    assert {other.id: other.reason for other in listing.left_out} == {
        "test/a.png": "split test: val is used for validation", "test/b.png": "split test: val is used for validation",
        "test/metadata.csv": "its images are not used",
    }    # fmt: skip


@pytest.mark.parametrize("content", [
    {"labels": [["00000/img00000000.png", 6], ["00000/img00000001.png", 9], ["00001/img00001000.png", 6]]},
    {"labels": {"00000/img00000000.png": 6, "00000/img00000001.png": 9, "00001\\img00001000.png": 6}},
])  # fmt: skip
def test_stylegans_file_gives_the_labels_and_its_numbered_folders_are_no_classes(tmp_path, pack, content):
    names = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00001000.png"]
    source = pack(names, {"dataset.json": json.dumps(content)})
    assert labels(listed(source, tmp_path)) == dict(zip(names, (6, 9, 6), strict=True))


def test_stylegans_file_without_labels_is_the_reason(tmp_path, pack):
    source = pack(["00000/img00000000.png", "00001/img00001000.png"], {"dataset.json": '{"labels": null}'})
    listing = listed(source, tmp_path)
    assert set(labels(listing).values()) == {None}
    assert listing.unlabelled == "dataset.json says that the images have no labels"
    assert listing.left_out == (("dataset.json", listing.unlabelled),)
    with pytest.raises(DataError, match=r"--labels file: dataset\.json says"):
        listed(source, tmp_path, labels="file")


@pytest.mark.parametrize(("file", "content", "said"), [
    ("dataset.json", '{"labels": [["a.png", [0.5]], ["b.png", [1]]]}', "the labels of dataset.json are vectors, not classes"),
    ("dataset.json", '{"images": []}', "dataset.json has no key labels, as StyleGAN's file of this name does"),
    ("dataset.json", "[1, 2]", "dataset.json has no key labels, as StyleGAN's file of this name does"),
    ("metadata.csv", "name,label\na.png,3", "metadata.csv has no column file_name"),
    ("metadata.jsonl", '{"file_name": "a.png", "text": "a dog"}', "metadata.jsonl has no column of labels; Its columns are text"),
    ("metadata.csv", "a_file_name,b_file_name,label\na.png,b.png,3", "metadata.csv has several columns of file names"),
    ("metadata.csv", rows("csv", ("a.png", None), ("b.png", "-1")), "no image has a label in metadata.csv"),
    ("a.csv", "image,label\na.png,3", "a.csv is not read: labels are read from metadata.csv, metadata.jsonl and dataset.json"),
])  # fmt: skip
def test_a_file_that_gives_no_labels_is_said(tmp_path, pack, file, content, said):
    source = pack(["a.png", "b.png"], {file: content})
    listing = listed(source, tmp_path)
    assert set(labels(listing).values()) == {None}
    assert listing.unlabelled == said
    assert [other.id for other in listing.left_out] == [file]
    card = prepare_images(Preparation(find_source(str(source)), Rule(8)), tmp_path / "out", workers=1)
    assert card.unlabelled == said


@pytest.mark.parametrize(("file", "content", "words"), [
    ("metadata.csv", rows("csv", ("a.png", 1)), r"1 of 2 images have no label in metadata\.csv, the first b\.png\."),
    ("metadata.jsonl", rows("jsonl", ("a.png", 1), ("b.png", None)), "1 of 2 images have no label"),
    ("metadata.csv", rows("csv", ("x.png", 1), ("y.png", 2)), "none of the 2 files it names is an image of the source"),
    ("metadata.csv", rows("csv", ("a.png", 1), ("a.png", 2), ("b.png", 2)), "gives a.png two labels: 1 and 2"),
    ("metadata.csv", rows("csv", ("../a.png", 1), ("b.png", 2)), "leads outside the source"),
    ("metadata.csv", rows("csv", ("/etc/a.png", 1), ("b.png", 2)), "leads outside the source"),
    ("metadata.jsonl", rows("jsonl", ("a.png", 1), ("b.png", "x")), "label 'x' of b.png is not a class number"),
    ("metadata.jsonl", rows("jsonl", ("a.png", 1.5), ("b.png", 1)), "label '1.5' of a.png is not a class number"),
    ("metadata.jsonl", '{"file_name": "a.png"', "metadata.jsonl, line 1: not JSON"),
    ("metadata.jsonl", "[1]", "line 1: not a JSON object"),
    ("metadata.csv", b"file_name,label\n\xff\xfe,1", "not a CSV file in UTF-8"),
    ("metadata.parquet", b"PAR1", "not a complete table"),
    ("dataset.json", '{"labels": [3, 4]}', "not a list of .path, number. pairs"),
    ("dataset.json", '{"labels": [["a.png", 6], ["b', "not JSON"),
    ("metadata.csv", "file_name,label,class\na.png,1,x\nb.png,2,y", "2 columns of labels: label, class"),
])  # fmt: skip
def test_a_file_that_does_not_fit_the_images_is_an_error(tmp_path, pack, file, content, words):
    source = pack(["a.png", "b.png"], {file: content})
    with pytest.raises(DataError, match=words):
        listed(source, tmp_path)
    unlabelled = listed(source, tmp_path, labels="none")
    assert set(labels(unlabelled).values()) == {None} and unlabelled.unlabelled == "--labels none"
    assert unlabelled.left_out == ((file, "--labels none"),)


def test_a_name_that_is_no_image_is_listed(tmp_path, pack):
    file = rows("csv", ("a.png", 1), ("gone.png", 2), ("notes.txt", 2))
    listing = listed(pack(["a.png"], {"metadata.csv": file, "notes.txt": "-"}), tmp_path)
    assert labels(listing) == {"a.png": 1}
    assert listing.left_out == (("gone.png", "named in metadata.csv, but missing"), ("notes.txt", "not an image (.txt)"))


def test_a_column_of_labels_can_be_chosen(tmp_path, pack):
    source = pack(["a.png", "b.png"], {"metadata.csv": "file_name,label,breed\na.png,1,pug\nb.png,2,lab"})
    assert labels(listed(source, tmp_path, label_column="breed")) == {"a.png": "pug", "b.png": "lab"}
    with pytest.raises(RecipeError, match=r"--label-column colour: metadata\.csv has no such column"):
        listed(source, tmp_path, label_column="colour")
    with pytest.raises(RecipeError, match="--label-column has no effect with --labels none"):
        listed(source, tmp_path, label_column="breed", labels="none")


def test_class_folders_and_a_file_that_disagree_are_an_error_with_both_ways_on(tmp_path, pack):
    names = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]
    source = pack(names, {"metadata.csv": rows("csv", *zip(names, ("x", "y", "y", "y"), strict=True))})
    words = r"folders and metadata\.csv disagree: cat/1\.png is of class x, .*folder cat\.[\s\S]*--labels file, --labels folders"
    with pytest.raises(DataError, match=words):
        listed(source, tmp_path)
    assert labels(listed(source, tmp_path, labels="file")) == dict(zip(names, "xyyy", strict=True))
    by_folder = listed(source, tmp_path, labels="folders")
    assert labels(by_folder) == {name: name[:3] for name in names}
    assert by_folder.left_out == (("metadata.csv", "--labels folders"),)


@pytest.mark.parametrize(("given", "names"), [
    ((1, 1, 0, 0), ("dog", "cat")), (("pet", "pet", "wolf", "wolf"), ("pet", "wolf")), ((8, 8, 3, 3), ()),
])  # fmt: skip
def test_class_folders_and_a_file_that_agree_give_the_files_numbers(tmp_path, pack, given, names):
    images = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]
    listing = listed(pack(images, {"metadata.csv": rows("csv", *zip(images, given, strict=True))}), tmp_path)
    assert listing.class_names == names
    numbers = [entry.label for entry in listing.entries]
    assert numbers == (list(given) if isinstance(given[0], int) else [0, 0, 1, 1])


def test_a_file_labels_images_that_are_in_no_class_folder(tmp_path, pack):
    """ImageNet after extraction: val/ has no class folders."""
    images = ["train/n01/1.png", "train/n02/1.png", "val/9.png"]
    with pytest.raises(DataError, match="in no class folder"):
        listed(pack(images, {}), tmp_path)
    source = pack(images, {"metadata.csv": rows("csv", *zip(images, ("x", "y", "x"), strict=True))})
    assert labels(listed(source, tmp_path)) == dict(zip(images, "xyx", strict=True))
    with pytest.raises(DataError, match=r"--labels folders: the images are not in class folders: 1 of 3 images is not directly"):
        listed(source, tmp_path, labels="folders")


def test_two_files_that_disagree_are_an_error(tmp_path, pack):
    files = {"metadata.csv": rows("csv", ("a.png", 1)), "dataset.json": json.dumps({"labels": [["a.png", 2]]})}
    with pytest.raises(DataError, match=r"dataset\.json and metadata\.csv give a\.png different labels: 2 and 1"):
        listed(pack(["a.png"], files), tmp_path)


def test_labels_of_shards_can_be_left_out_but_not_be_read_from_files(tmp_path, png):
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name, content in (("1.png", png), ("1.cls", b"4"), ("2.png", png), ("2.cls", b"5")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert labels(listed(tmp_path / "shard.tar", tmp_path)) == {"1.png": 4, "2.png": 5}
    assert set(labels(listed(tmp_path / "shard.tar", tmp_path, labels="none")).values()) == {None}
    with pytest.raises(RecipeError, match=r"--labels file has no effect on shards"):
        listed(tmp_path / "shard.tar", tmp_path, labels="file")


def test_the_digest_of_a_folder_holds_its_label_file_where_it_is_read(tmp_path, png):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(png)
    bare = find_source(str(folder)).digest()
    (folder / "metadata.csv").write_text(rows("csv", ("a.png", 1)))
    with_labels = find_source(str(folder)).digest()
    assert with_labels != bare == find_source(str(folder)).digest(LabelRule("none"))
    (folder / "metadata.csv").write_text(rows("csv", ("a.png", 2)))
    assert find_source(str(folder)).digest() not in (bare, with_labels)


def test_a_prepared_folder_is_told_from_others_with_a_dataset_json(tmp_path, photo_folder):
    prepare_images(Preparation(find_source(str(photo_folder(6))), Rule(8)), tmp_path / "out", workers=1)
    card = (tmp_path / "out" / "dataset.json").read_text()
    assert is_prepared(tmp_path / "out")
    for content in (json.dumps(json.loads(card), sort_keys=True), card[:100], card[1000:], ""):
        (tmp_path / "out" / "dataset.json").write_text(content)
        assert is_prepared(tmp_path / "out")
    for content in ('{"labels": null}', '{\n "labels": [["0001.png", 3]]}', '{"images": [], "categories": []}', "[]", "", "{"):
        (tmp_path / "photographs" / "dataset.json").write_text(content)
        assert not is_prepared(tmp_path / "photographs")


def test_pixels_of_a_labelled_zip_are_those_of_its_images(tmp_path, photo_bytes):
    """EDM's form, prepared to the end."""
    with zipfile.ZipFile(tmp_path / "edm.zip", "w") as archive:
        for number in range(6):
            archive.writestr(f"00000/img{number:08d}.png", photo_bytes(number, 16, 16))
        archive.writestr("dataset.json", json.dumps({"labels": [[f"00000/img{n:08d}.png", n % 3] for n in range(6)]}))
    prepare_images(Preparation(find_source(str(tmp_path / "edm.zip")), Rule(16), val_fraction=0), tmp_path / "out", workers=1)
    from smtool.data import open_images

    images = open_images(str(tmp_path / "out"), "train", image_size=16)
    batch = images.read(range(6))
    found = {(np.uint8((image.numpy().transpose(1, 2, 0) + 1) * 127.5 + 0.5).tobytes(), int(label))
             for image, label in zip(batch.images, batch.labels, strict=True)}
    from PIL import Image

    expected = {(np.asarray(Image.open(io.BytesIO(photo_bytes(n, 16, 16)))).tobytes(), n % 3) for n in range(6)}
    assert found == expected
