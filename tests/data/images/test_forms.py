"""The same images in every form that `prepare` accepts are the same set of pixels and class names."""

import hashlib
import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from smtool.data.images.decoding import AS_STORED
from smtool.data.images.listing import list_entries
from smtool.data.images.sources import find_source

CLASSES = ("cat", "dog", "emu")
IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(CLASSES)}}
SCHEMA = pyarrow.schema(
    [("image", IMAGE), ("label", pyarrow.int64())], {"huggingface": json.dumps({"info": {"features": FEATURES}})}
)


@pytest.fixture
def pictures(photo_bytes):
    """(class name, file name, bytes) of 18 images."""
    return [(CLASSES[number % 3], f"{number:03d}.png", photo_bytes(number)) for number in range(18)]


def table_of(pictures):
    rows = [{"image": {"bytes": data, "path": name}, "label": CLASSES.index(group)} for group, name, data in pictures]
    return pyarrow.Table.from_pylist(rows, SCHEMA)


def write_folders(folder, pictures):
    for group, name, data in pictures:
        (folder / group).mkdir(parents=True, exist_ok=True)
        (folder / group / name).write_bytes(data)
    return folder


def write_zip(path, pictures):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for group, name, data in pictures:
            archive.writestr(f"{group}/{name}", data)
    return path


def write_tar(path, pictures):
    with tarfile.open(path, "w") as tar:
        for group, name, data in pictures:
            add(tar, f"{group}/{name}", data)
    return path


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_linked_tar(path, pictures):
    """Each image once in `all/`, outside the tar as well, and once more as a hard link in its class folder."""
    folder = write_folders(path.with_name("linked"), pictures)
    with tarfile.open(path, "w") as tar:
        for group, name, _ in pictures[:9]:
            tar.add(folder / group / name, f"{group}/{name}")
            os.link(folder / group / name, folder / group / f"again-{name}")
            tar.add(folder / group / f"again-{name}", f"{group}/again-{name}")    # as a link to the first member
        for group, name, _ in pictures[9:]:
            tar.add(folder / group / name, f"{group}/{name}")
        assert sum(member.islnk() for member in tar.getmembers()) == 9
    return path


def write_shards(folder, pictures):
    folder.mkdir()
    for part in range(2):
        with tarfile.open(folder / f"part-{part}.tar", "w") as tar:
            for group, name, data in pictures[part::2]:
                key = name.removesuffix(".png")
                add(tar, f"{key}.png", data)
                add(tar, f"{key}.cls", str(CLASSES.index(group)).encode())
    return folder


def write_parquet(folder, pictures):
    (folder / "data").mkdir(parents=True)
    for part in range(2):
        file = folder / "data" / f"train-{part:05d}-of-00002.parquet"
        pyarrow.parquet.write_table(table_of(pictures[part * 9 : part * 9 + 9]), file, row_group_size=4)
        assert pyarrow.parquet.ParquetFile(file).num_row_groups == 3
    return folder


def write_saved(folder, pictures):
    """As datasets.save_to_disk writes it: Arrow streams, and a state.json that names them."""
    folder.mkdir()
    names = [f"data-{part:05d}-of-00002.arrow" for part in range(2)]
    for part, name in enumerate(names):
        table = table_of(pictures[part::2])
        with pyarrow.ipc.new_stream(str(folder / name), SCHEMA) as writer:
            writer.write_table(table, max_chunksize=4)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


def write_labelled(folder, pictures):
    """Hugging Face's imagefolder: a flat folder and metadata.jsonl."""
    folder.mkdir()
    rows = []
    for group, name, data in pictures:
        (folder / name).write_bytes(data)
        rows.append(json.dumps({"file_name": name, "label": group}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


FORMS = {
    "folders": write_folders, "zip": write_zip, "tar": write_tar, "linked.tar": write_linked_tar, "shards": write_shards,
    "parquet": write_parquet, "saved": write_saved, "metadata": write_labelled,
}    # fmt: skip


def contents(source, scratch):
    """Sorted digests of (pixels, class name) of all images, each once."""
    listing = list_entries(find_source(str(source)), size=0, scratch=scratch)
    names = listing.class_names or CLASSES
    found = set()
    for entry in listing.entries:
        pixels = np.asarray(entry.place.decoded(AS_STORED).image)
        found.add(hashlib.sha256(f"{names[entry.label]}{pixels.shape}".encode() + pixels.tobytes()).hexdigest())
    return sorted(found)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels_and_classes(tmp_path, pictures, form):
    import PIL.Image

    expected = set()
    for group, _, data in pictures:
        pixels = np.asarray(PIL.Image.open(io.BytesIO(data)))
        expected.add(hashlib.sha256(f"{group}{pixels.shape}".encode() + pixels.tobytes()).hexdigest())
    assert len(expected) == 18
    suffix = ".zip" if form == "zip" else ".tar" if "tar" in form else ""
    source = FORMS[form](tmp_path / f"source{suffix}", pictures)
    assert contents(source, tmp_path / "scratch") == sorted(expected)
