"""Webdataset shards as a source: samples, their labels, and which of their members are images."""

import io
import tarfile
import zipfile

import pytest

from smtool.data.images.listing import list_entries
from smtool.data.images.samples import SampleRule
from smtool.data.images.sources import find_source
from smtool.errors import DataError, RecipeError


def write_tar(path, members):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def listed(source, rule=SampleRule()):
    return list_entries(find_source(str(source)), size=16, scratch=source.parent / "scratch", samples=rule)


def labels(listing):
    return {entry.id: entry.label for entry in listing.entries}


@pytest.fixture
def pngs(photo_bytes):
    return [photo_bytes(number) for number in range(8)]


def test_labels_of_samples_with_dots_in_their_names_are_offered(tmp_path, pngs):
    """webdataset itself names the member v1.0.cls of the sample a."""
    shard = write_tar(tmp_path / "x.tar", {"a.v1.png": pngs[0], "a.v1.cls": b"3", "b.v1.png": pngs[1], "b.v1.cls": b"4"})
    listing = listed(shard)
    assert labels(listing) == {"a.v1.png": None, "b.v1.png": None}
    assert listing.unlabelled == (
        "2 .cls members are not used, the first a.v1.cls, because a sample's name ends at its first dot;"
        " --sample-key last-dot uses them"
    )
    assert [other.id for other in listing.left_out] == ["a.v1.cls", "b.v1.cls"]
    last = listed(shard, SampleRule("last-dot"))
    assert labels(last) == {"a.v1.png": 3, "b.v1.png": 4} and not last.unlabelled and not last.left_out


def test_several_images_of_a_sample_are_an_error_with_two_ways_on(tmp_path, pngs):
    """An input and a mask: webdataset gives both as members of one sample."""
    members = {}
    for number in range(3):
        members |= {f"{number}.input.png": pngs[number], f"{number}.mask.png": pngs[number + 3], f"{number}.cls": b"%d" % number}
    shard = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(DataError) as caught:
        listed(shard)
    assert "x.tar: 3 of 3 samples hold several images, the first 0 with input.png, mask.png." in str(caught.value)
    assert "--member input.png" in str(caught.value) and "--sample-key last-dot" in str(caught.value)
    chosen = listed(shard, SampleRule(member="INPUT.png"))
    assert labels(chosen) == {f"{number}.input.png": number for number in range(3)}
    assert chosen.left_out == tuple((f"{number}.mask.png", "not the member INPUT.png of its sample") for number in range(3))
    each = listed(shard, SampleRule("last-dot"))
    assert len(each.entries) == 6
    assert each.unlabelled == "3 .cls members are not used, the first 0.cls, because no image has its name"
    del members["0.cls"], members["1.cls"], members["2.cls"]
    bare = write_tar(tmp_path / "y.tar", members)
    assert len(listed(bare).entries) == 6       # without .cls, one tar is a packed folder
    assert len(listed(bare, SampleRule(member="mask.png")).entries) == 3


def test_members_that_are_no_images_are_left_out_with_the_reason(tmp_path, pngs):
    folder = tmp_path / "set"
    first = {"0.png": pngs[0], "0.cls": b"1", "0.json": b"{}", "0.txt": b"a cat", "9.cls": b"2", "9.json": b"{}"}
    write_tar(folder / "a-0.tar", first)
    write_tar(folder / "a-1.tar", {"1.PNG": pngs[1], "1.cls": b"0", "1.npy": b"", ".hidden.png": b"", "1.seg": b"?"})
    (folder / "classes.txt").write_text("cat\ndog\n")
    listing = listed(folder)
    assert labels(listing) == {"a-0.tar/0.png": 1, "a-1.tar/1.PNG": 0}
    assert dict(listing.left_out) == {
        "a-0.tar/0.txt": "not an image (.txt)", "a-0.tar/9.cls": "belongs to no image", "a-0.tar/9.json": "belongs to no image",
        "a-1.tar/1.npy": "not an image (.npy)", "a-1.tar/.hidden.png": "hidden", "classes.txt": "not an image (.txt)",
        "a-1.tar/1.seg": "not an image that can be read (.seg)",
    }  # fmt: skip


def test_images_of_a_split_that_is_not_used_are_left_out_with_the_reason(tmp_path, pngs):
    for number, split in enumerate(("train", "val", "test")):
        write_tar(tmp_path / "set" / f"x-{split}-0.tar", {f"{number}.png": pngs[number], f"{number}.cls": b"0"})
    listing = listed(tmp_path / "set")
    assert {entry.id: entry.split for entry in listing.entries} == {"x-train-0.tar/0.png": "train", "x-val-0.tar/1.png": "val"}
    assert dict(listing.left_out) == dict.fromkeys(
        ("x-test-0.tar/2.png", "x-test-0.tar/2.cls"), "split test: val is used for validation"
    )
    write_tar(tmp_path / "set" / "more.tar", {"5.png": pngs[5], "5.cls": b"0"})
    with pytest.raises(DataError, match=r"1 of 4 archives belong neither to train nor to val, the first more\.tar"):
        listed(tmp_path / "set")


def test_archives_of_the_same_name_in_several_folders_are_all_used(tmp_path, pngs):
    for number, split in enumerate(("train", "val")):
        write_tar(tmp_path / split / "0.tar", {f"{number}.png": pngs[number], f"{number}.cls": b"%d" % number})
    listing = list_entries(find_source(f"{tmp_path}/*/0.tar"), size=16, scratch=tmp_path / "scratch")
    assert {entry.id: entry.split for entry in listing.entries} == {"train/0.tar/0.png": "train", "val/0.tar/1.png": "val"}


def test_images_beside_archives_are_an_error_with_two_ways_on(tmp_path, pngs):
    shard = write_tar(tmp_path / "set" / "a.tar", {"0.png": pngs[0], "0.cls": b"1"})
    (shard.parent / "b.png").write_bytes(pngs[1])
    with pytest.raises(DataError, match=r"holds 1 tar files and 1 images, the first b\.png\.[\s\S]*\*\.tar, or move"):
        listed(shard.parent)


def test_a_label_that_is_not_a_number_and_a_missing_label_are_named(tmp_path, pngs):
    write_tar(tmp_path / "a.tar", {"1.png": pngs[0], "1.cls": b"cat"})
    with pytest.raises(DataError, match=r"a\.tar: 1\.cls holds 'cat'"):
        listed(tmp_path / "a.tar")
    write_tar(tmp_path / "b.tar", {"1.png": pngs[0], "1.cls": b"3", "2.png": pngs[1]})
    with pytest.raises(DataError, match=r"1 of 2 images have no \.cls member, the first 2\.png"):
        listed(tmp_path / "b.tar")


def test_an_unknown_end_of_keys_is_a_recipe_error():
    with pytest.raises(RecipeError, match="Use first-dot or last-dot"):
        SampleRule("dot")


@pytest.mark.parametrize("rule", [SampleRule("last-dot"), SampleRule(member="input.png")])
@pytest.mark.parametrize("kind", ["folder", "zip", "builtin", "imagenet"])
def test_options_for_samples_are_refused_where_there_are_none(tmp_path, pngs, kind, rule):
    source = tmp_path / "set"
    source.mkdir()
    if kind == "imagenet":
        write_tar(source / "n01440764.tar", {"a.png": pngs[0]})
    else:
        (source / "a.png").write_bytes(pngs[0])
    if kind == "zip":
        source = tmp_path / "set.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("a.png", pngs[0])
    with pytest.raises(RecipeError, match="is not a tar of webdataset samples"):
        list_entries(find_source("builtin:photos" if kind == "builtin" else str(source)), size=16, scratch=tmp_path, samples=rule)
