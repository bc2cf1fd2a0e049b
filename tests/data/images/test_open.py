import io
import tarfile

import pytest

from smtool.data import open_images, read_card
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule
from smtool.errors import DataError
from smtool.image_shape import ImageSize


def write_tar(path, photo_bytes, numbers):
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            data = photo_bytes(number)
            info = tarfile.TarInfo(f"{number:06d}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def modified(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_plain_tar_is_prepared_on_first_use_and_reused_afterwards(tmp_path, photo_bytes):
    tar, seen = write_tar(tmp_path / "faces.tar", photo_bytes, range(20)), []
    train = open_images(tar, "train", image_size=16, root=tmp_path / "data", report=lambda *step: seen.append(step))
    assert train.folder == tmp_path / "data" / "faces-16"
    assert seen[-1] == (20, 20)
    before = modified(train.folder)
    val = open_images(tar, "val", image_size=16, root=tmp_path / "data")
    assert (len(train), len(val)) == (19, 1)    # 5 % are held out
    assert modified(train.folder) == before
    assert train.digest != val.digest
    assert train.groups is None and train.num_classes == 0


def test_a_folder_prepared_from_other_data_of_the_same_name_is_not_reused(tmp_path, photo_bytes):
    tar = write_tar(tmp_path / "faces.tar", photo_bytes, range(20))
    open_images(tar, "train", image_size=16, root=tmp_path / "data")
    write_tar(tmp_path / "faces.tar", photo_bytes, range(1, 21))
    with pytest.raises(DataError, match="prepared from another source") as caught:
        open_images(tar, "train", image_size=16, root=tmp_path / "data")
    assert "--out" in str(caught.value)


def test_another_size_of_a_raw_source_is_prepared_beside_the_first(tmp_path, photo_bytes):
    tar = write_tar(tmp_path / "faces.tar", photo_bytes, range(20))
    sizes = [open_images(tar, "train", image_size=size, root=tmp_path / "data").image_size for size in (16, 24)]
    assert sizes == [ImageSize(16, 16), ImageSize(24, 24)]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["faces-16", "faces-24"]


def test_a_prepared_folder_of_another_size_is_an_error_that_names_both_sizes_and_the_command(tmp_path, photo_folder):
    prepare_images(Preparation(find_source(str(photo_folder(8))), Rule(16)), tmp_path / "out", workers=1)
    with pytest.raises(DataError, match="holds images of 16 px, but 32 px are asked for") as caught:
        open_images(str(tmp_path / "out"), "train", image_size=32)
    assert "smtool prepare photographs --size 32" in str(caught.value)


def test_an_empty_split_is_an_error_with_a_hint(tmp_path, photo_folder):
    source = find_source(str(photo_folder(8)))
    prepare_images(Preparation(source, Rule(16), val_fraction=0.0), tmp_path / "out", workers=1)
    assert len(open_images(str(tmp_path / "out"), "train", image_size=16)) == 8
    with pytest.raises(DataError, match="no validation images") as caught:
        open_images(str(tmp_path / "out"), "val", image_size=16)
    assert "--split" in str(caught.value)


def test_an_unfinished_folder_is_not_taken_for_a_folder_of_shards(tmp_path, photo_folder):
    prepare_images(Preparation(find_source(str(photo_folder(8))), Rule(16)), tmp_path / "out", workers=1)
    (tmp_path / "out" / "dataset.json").unlink()
    (tmp_path / "out" / ".unfinished").mkdir()
    with pytest.raises(DataError, match="was interrupted"):
        open_images(str(tmp_path / "out"), "train", image_size=16, root=tmp_path / "data")


def test_shards_of_a_prepared_folder_must_be_opened_by_the_folder(tmp_path, photo_folder):
    prepare_images(Preparation(find_source(str(photo_folder(8))), Rule(16)), tmp_path / "out", workers=1)
    with pytest.raises(DataError, match="belong to a prepared folder") as caught:
        open_images(str(tmp_path / "out" / "train-*.tar"), "train", image_size=16, root=tmp_path)
    assert str(tmp_path / "out") in str(caught.value)


def test_labels_arrive_with_the_images(tmp_path, photo_bytes):
    for number in range(12):
        path = tmp_path / "pets" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo_bytes(number))
    train = open_images(str(tmp_path / "pets"), "train", image_size=16, root=tmp_path / "data")
    assert train.num_classes == 3
    assert sorted(train.read(range(len(train))).labels.tolist()).count(1) in (3, 4)
    assert read_card(train.folder).class_names == ("a", "b", "c")


def test_builtin_photographs_name_the_photograph_of_each_crop(tmp_path):
    train = open_images("builtin:photos?train=24&val=12", "train", image_size=16, root=tmp_path)
    assert len(train.groups) == 24
    assert len(set(train.groups)) == train.card.photographs == 12
    assert train.folder.name == "photos-train24-val12-16"


def test_a_builtin_without_validation_images_does_not_take_them_from_training(tmp_path):
    train = open_images("builtin:photos?train=24&val=0", "train", image_size=16, root=tmp_path)
    assert (train.card.count("train"), train.card.count("val")) == (24, 0)
