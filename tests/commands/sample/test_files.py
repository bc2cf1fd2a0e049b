"""Files of samples: each format can be read by the tools that defined it."""

import json
import tarfile

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from smtool.commands.sample import files
from smtool.commands.sample.files import FORMATS, SampleFolder, check_passport, write_npz
from smtool.diffusion import Sampler
from smtool.inference.sampling import Sampling, read_sampling

COUNT, PART = 10, 4
IMAGES = torch.randint(0, 256, (COUNT, 3, 6, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = [index % 3 for index in range(COUNT)]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(files, "PART", PART)


def written(folder, kind, labels=LABELS):
    files = SampleFolder(folder, kind, COUNT, labels)
    for part in files.parts():
        files.write(part, IMAGES[part.start : part.stop])
    return files


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parts_cover_every_image_once(tmp_path):
    parts = SampleFolder(tmp_path, "png", COUNT, None).parts()
    assert parts == [range(4), range(4, 8), range(8, 10)]


def test_png_files_hold_the_images_and_labels_json_their_classes(tmp_path):
    assert written(tmp_path, "png").finish() == tmp_path
    for index in range(COUNT):
        pixels = np.asarray(Image.open(tmp_path / f"{index:06d}.png"))
        assert np.array_equal(pixels, IMAGES[index].permute(1, 2, 0).numpy())
    assert json.loads((tmp_path / "labels.json").read_text()) == LABELS


@pytest.mark.parametrize("kind", ["png", "shards", "npz"])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (4, "RGBA")])
def test_images_of_other_channels_and_shapes_are_kept(channels, mode, kind, tmp_path):
    shape = (COUNT, channels, 6, 9)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    folder = SampleFolder(tmp_path, kind, COUNT, None)
    for part in folder.parts():
        folder.write(part, images[part.start : part.stop])
    folder.finish()
    assert torch.equal(folder.first(7), images[:7])
    if kind == "png":
        assert Image.open(tmp_path / "000000.png").mode == mode
    if kind == "npz":
        assert np.load(tmp_path / "samples.npz")["arr_0"].shape == (COUNT, 6, 9, channels)


def test_shards_are_read_by_webdataset(tmp_path):
    written(tmp_path, "shards").finish()
    url = str(tmp_path / "samples-{000000..000002}.tar")
    shards = webdataset.WebDataset(url, shardshuffle=False, empty_check=False)
    found = list(shards.decode("pil").to_tuple("__key__", "png", "cls"))
    assert [key for key, _, _ in found] == [f"{index:06d}" for index in range(COUNT)]
    assert [int(label) for _, _, label in found] == LABELS
    for index, (_, picture, _) in enumerate(found):
        assert np.array_equal(np.asarray(picture), IMAGES[index].permute(1, 2, 0).numpy())


def test_shards_without_classes_hold_images_only(tmp_path):
    written(tmp_path, "shards", labels=None)
    with tarfile.open(tmp_path / "samples-000000.tar") as archive:
        assert archive.getnames() == [f"{index:06d}.png" for index in range(PART)]


@pytest.mark.parametrize("labels", [LABELS, None])
def test_an_npz_is_adms(tmp_path, labels):
    """arr_0 uint8 NHWC and arr_1 int64, as read by guided-diffusion's evaluator, without pickled objects."""
    path = written(tmp_path, "npz", labels).finish()
    assert path == tmp_path / "samples.npz"
    with np.load(path, allow_pickle=False) as archive:
        assert archive.files == (["arr_0"] if labels is None else ["arr_0", "arr_1"])
        assert (archive["arr_0"].dtype, archive["arr_0"].shape) == (np.uint8, (COUNT, 6, 8, 3))
        assert np.array_equal(archive["arr_0"], IMAGES.permute(0, 2, 3, 1).numpy())
        if labels is not None:
            assert archive["arr_1"].dtype == np.int64
            assert archive["arr_1"].tolist() == labels
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]      # the parts are removed


@pytest.mark.parametrize("kind", FORMATS)
def test_a_part_is_written_atomically_and_deterministically(tmp_path, kind):
    files = SampleFolder(tmp_path, kind, COUNT, LABELS)
    assert not any(files.has(part) for part in files.parts())
    files.write(files.parts()[1], IMAGES[4:8])
    assert [files.has(part) for part in files.parts()] == [False, True, False]
    before = contents(tmp_path)
    files.write(files.parts()[1], IMAGES[4:8])
    assert contents(tmp_path) == before
    next(iter(sorted(tmp_path.iterdir()))).unlink()
    assert not files.has(files.parts()[1])


def test_a_finished_npz_has_all_parts_and_is_not_joined_again(tmp_path):
    files = written(tmp_path, "npz")
    files.finish()
    before = contents(tmp_path)
    assert all(files.has(part) for part in files.parts())
    files.finish()
    assert contents(tmp_path) == before


def test_an_npz_is_written_atomically(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "savez", lambda file, **arrays: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_npz(tmp_path / "samples.npz", np.zeros((1, 2, 2, 3), np.uint8), None)
    assert not list(tmp_path.iterdir())


def test_a_passport_is_written_once_and_differences_are_named(tmp_path):
    passport = {"rounding": "nearest", "seed": 0, "sampler": {"kind": "euler", "cfg_interval": (0.0, 1.0)}, "labels": None}
    assert check_passport(tmp_path, Sampling(**passport)) == []
    written = json.loads((tmp_path / "samples.json").read_text())
    newer = {"cfg_channels", "epsilon_scale", "stop_time", "precision"}
    sampler = Sampler(kind="euler").model_dump(mode="json", exclude=newer)      # as before these keys
    assert written == {**passport, "sampler": sampler}      # unknown fields are left out
    assert Sampling(sampler={"cfg_channels": 3}).to_json()["sampler"]["cfg_channels"] == 3
    assert Sampling(sampler={"epsilon_scale": 1.01}).to_json()["sampler"] == {**sampler, "kind": "ddim", "epsilon_scale": 1.01}
    assert check_passport(tmp_path, Sampling(**passport)) == []
    for precision, differing in (("fp32", []), ("bf16", ["sampler"])):
        other = {**passport["sampler"], "precision": precision}
        assert check_passport(tmp_path, Sampling(**{**passport, "sampler": other})) == differing
    assert check_passport(tmp_path, Sampling(**{**passport, "seed": 1, "labels": "random"})) == ["labels", "seed"]
    assert check_passport(tmp_path, Sampling(**{**passport, "sampler": {"kind": "ddim"}})) == ["sampler"]
    assert check_passport(tmp_path, Sampling(**passport)) == []      # the check did not change it
    assert read_sampling(tmp_path) == Sampling(**passport)


def test_samples_of_versions_without_the_option_are_rounded_to_nearest(tmp_path):
    check_passport(tmp_path, Sampling(seed=0))
    assert check_passport(tmp_path, Sampling(seed=0, rounding="nearest")) == []
    assert check_passport(tmp_path, Sampling(seed=0, rounding="truncate")) == ["rounding"]


def test_parts_that_a_killed_call_did_not_remove_are_removed(tmp_path):
    files = written(tmp_path, "npz")
    files.finish()
    files._part(files.parts()[0]).touch()
    files.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]
