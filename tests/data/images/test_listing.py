"""Listing of every kind of source that `prepare` accepts, on small real files."""

import bz2
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from smtool.data.images.decoding import AS_STORED
from smtool.data.images.listing import list_entries
from smtool.data.images.sources import find_source
from smtool.errors import DataError, RecipeError


def entries_of(source, tmp_path):
    found = find_source(str(source))
    listing = list_entries(found, size=16, scratch=tmp_path / "scratch")
    return {entry.id: entry for entry in listing.entries}, listing


def tar_of(members, mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def pixels_of(data):
    return np.array(Image.open(io.BytesIO(data)))


@pytest.fixture
def pngs(photo_bytes):
    return [photo_bytes(number) for number in range(8)]


def test_a_flat_folder_gives_every_image_once_and_skips_hidden_and_other_files(tmp_path, pngs):
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.png").write_bytes(pngs[0])
    (folder / "deep" / "er" / "b.PNG").write_bytes(pngs[1])
    (folder / ".thumbnail.png").write_bytes(pngs[2])
    (folder / "notes.txt").write_text("no image")
    entries, listing = entries_of(folder, tmp_path)
    assert list(entries) == ["a.png", "deep/er/b.PNG"]
    assert entries["a.png"].label is None
    assert listing.class_names == () and not listing.has_splits


@pytest.fixture(params=["folder", "zip", "tar", "tar.gz", "tar.xz"])
def packed(request, tmp_path):
    """Write {path: bytes} as a folder or an archive and return the source."""

    def pack(members):
        source = tmp_path / f"source.{request.param}"
        if request.param == "folder":
            for name, data in members.items():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_bytes(data)
        elif request.param == "zip":
            with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in members.items():
                    archive.writestr(name, data)
        else:
            mode = {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[request.param]
            source.write_bytes(tar_of(members, mode))
        return source

    return pack


def test_class_folders_give_labels_in_the_order_of_their_names(packed, tmp_path, pngs):
    members = {"pets/dog/1.png": pngs[0], "pets/cat/1.png": pngs[1], "pets/cat/2.png": pngs[2], "pets/__MACOSX/._x.png": b""}
    source = packed(members)
    entries, listing = entries_of(source, tmp_path)
    assert listing.class_names == ("cat", "dog")
    labels = {name: entry.label for name, entry in entries.items()}
    assert labels == {"pets/cat/1.png": 0, "pets/cat/2.png": 0, "pets/dog/1.png": 1}
    assert np.array_equal(entries["pets/dog/1.png"].place.decoded(AS_STORED).image, pixels_of(pngs[0]))
    assert np.array_equal(entries["pets/cat/2.png"].place.decoded(AS_STORED).image, pixels_of(pngs[2]))


@pytest.mark.parametrize(("stray", "said"), [
    ("stray.png", "1 of 5 images is not directly in a class folder, the first stray.png"),
    ("cat/deep/1.png", "1 of 5 images is not directly in a class folder, the first cat/deep/1.png"),
])
def test_what_keeps_folders_from_being_classes_is_said(packed, tmp_path, pngs, stray, said):
    names = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", stray]
    _, listing = entries_of(packed(dict.fromkeys(names, pngs[0])), tmp_path)
    assert listing.class_names == ()
    assert {entry.label for entry in listing.entries} == {None}
    assert listing.unlabelled == said


def test_a_source_with_train_and_val_folders_keeps_its_split_and_its_classes(packed, tmp_path, pngs):
    members = {"train/cat/1.png": pngs[0], "train/dog/1.png": pngs[1], "val/cat/1.png": pngs[2], "val/dog/1.png": pngs[3]}
    entries, listing = entries_of(packed({**members, "test/cat/9.png": pngs[4]}), tmp_path)
    assert {name: entry.split for name, entry in entries.items()} == {name: name.split("/")[0] for name in members}
    assert listing.class_names == ("cat", "dog")
    assert entries["val/dog/1.png"].label == 1


def test_class_folders_of_the_training_images_alone_are_an_error(packed, tmp_path, pngs):
    """ImageNet after extraction: val/ has no class folders."""
    members = {"train/n01/1.JPEG": pngs[0], "train/n02/1.JPEG": pngs[1], "val/ILSVRC2012_val_1.JPEG": pngs[2]}
    with pytest.raises(DataError, match=r"val/ILSVRC2012_val_1\.JPEG is in no class folder[\s\S]*train folder alone"):
        entries_of(packed(members), tmp_path)


def test_a_test_folder_is_the_validation_split_where_there_is_no_other(packed, tmp_path, pngs):
    entries, _ = entries_of(packed({"train/1.png": pngs[0], "test/2.png": pngs[1]}), tmp_path)
    assert {name: entry.split for name, entry in entries.items()} == {"train/1.png": "train", "test/2.png": "val"}


def test_webdataset_shards_give_labels_from_cls_and_splits_from_their_names(tmp_path, pngs):
    folder = tmp_path / "cifar"
    folder.mkdir()
    for part, (first, mode, suffix) in {"cifar-train-000": (0, "w:gz", ".tar.gz"), "cifar-test-000": (4, "w", ".tar")}.items():
        members = {}
        for number in range(first, first + 4):
            members |= {f"{number:06d}.png": pngs[number], f"{number:06d}.cls": b"%d" % (number % 3)}
        (folder / f"{part}{suffix}").write_bytes(tar_of(members, mode))
    (folder / "classes.txt").write_text("a\nb\nc\n")
    entries, listing = entries_of(folder, tmp_path)
    assert len(entries) == 8 and listing.has_splits
    assert entries["cifar-train-000.tar.gz/000002.png"].label == 2
    assert entries["cifar-test-000.tar/000004.png"].split == "val"
    assert np.array_equal(entries["cifar-test-000.tar/000004.png"].place.decoded(AS_STORED).image, pixels_of(pngs[4]))
    by_pattern, _ = entries_of(folder / "cifar-{train,test}-*.tar*", tmp_path)
    assert by_pattern.keys() == entries.keys()
    one, one_listing = entries_of(folder / "cifar-test-000.tar", tmp_path)
    assert set(one) == {f"{n:06d}.png" for n in range(4, 8)} and not one_listing.has_splits


def test_imagenets_class_tars_and_its_tar_of_tars_give_the_same_entries(tmp_path, pngs):
    synsets = {"n01440764": pngs[:2], "n02102040": pngs[2:5], "n03000684": pngs[5:6]}
    tars = {f"{s}.tar": tar_of({f"{s}_{i}.JPEG": data for i, data in enumerate(images)}) for s, images in synsets.items()}
    folder = tmp_path / "train"
    folder.mkdir()
    for name, data in tars.items():
        (folder / name).write_bytes(data)
    whole = tmp_path / "ILSVRC2012_img_train.tar"
    whole.write_bytes(tar_of(tars))
    (a, first), (b, second) = entries_of(folder, tmp_path), entries_of(whole, tmp_path)
    assert first.class_names == second.class_names == ("n01440764", "n02102040", "n03000684")
    assert {i: e.label for i, e in a.items()} == {i: e.label for i, e in b.items()}
    assert a["n02102040/n02102040_1.JPEG"].label == 1
    for name in a:
        assert a[name].place.read() == b[name].place.read()
    assert a["n02102040/n02102040_1.JPEG"].place.read() == pngs[3]


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:\\evil.png", "..\\evil.png"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_with_paths_outside_itself_is_refused(tmp_path, pngs, name, kind):
    source = tmp_path / f"x.{kind}"
    if kind == "tar":
        source.write_bytes(tar_of({"good.png": pngs[0], name: pngs[1]}))
    else:
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("good.png", pngs[0])
            archive.writestr(name, pngs[1])
    with pytest.raises(DataError, match="leads outside the archive"):
        entries_of(source, tmp_path)


def linked_tar(members, links):
    """A tar of files (name -> bytes), then of links (name -> (type, target))."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, (kind, target) in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            tar.addfile(link)
    return file.getvalue()


def test_links_that_lead_out_of_a_tar_are_not_followed(tmp_path, pngs):
    links = {"passwd.png": (tarfile.SYMTYPE, "/etc/passwd"), "up.png": (tarfile.SYMTYPE, "../a.png")}
    (tmp_path / "x.tar").write_bytes(linked_tar({"a.png": pngs[0]}, links))
    assert list(entries_of(tmp_path / "x.tar", tmp_path)[0]) == ["a.png"]


def test_links_inside_a_tar_count_where_they_stand(tmp_path, pngs):
    """GNU tar writes a second name of the same inode as a hard link."""
    members = {"x/cat/1.png": pngs[0], "x/cat/2.png": pngs[1]}
    links = {"x/dog/1.png": (tarfile.LNKTYPE, "x/cat/1.png"), "x/emu/1.png": (tarfile.SYMTYPE, "../cat/2.png")}
    (tmp_path / "x.tar").write_bytes(linked_tar(members, links))
    found, listing = entries_of(tmp_path / "x.tar", tmp_path)
    assert listing.class_names == ("cat", "dog", "emu")
    assert {name: entry.label for name, entry in found.items()} == {
        "x/cat/1.png": 0, "x/cat/2.png": 0, "x/dog/1.png": 1, "x/emu/1.png": 2,
    }
    assert found["x/dog/1.png"].place.read() == pngs[0]
    assert found["x/emu/1.png"].place.read() == pngs[1]


def test_links_of_a_tar_may_stand_before_what_they_lead_to_and_lead_over_other_links(tmp_path, pngs):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, target in (("a.png", "b.png"), ("b.png", "c.png"), ("x.png", "y.png"), ("y.png", "x.png")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        info = tarfile.TarInfo("c.png")
        info.size = len(pngs[0])
        tar.addfile(info, io.BytesIO(pngs[0]))
    (tmp_path / "x.tar").write_bytes(file.getvalue())
    found, _ = entries_of(tmp_path / "x.tar", tmp_path)
    assert {name: entry.place.read() for name, entry in found.items()} == dict.fromkeys(("a.png", "b.png", "c.png"), pngs[0])


def test_links_in_folders_count_where_they_stand_and_circles_end(tmp_path, pngs):
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    for folder in (source / "cat", elsewhere):
        folder.mkdir(parents=True)
    (source / "cat" / "1.png").write_bytes(pngs[0])
    (elsewhere / "2.png").write_bytes(pngs[1])
    (source / "dog").symlink_to(elsewhere)
    (source / "cat" / "again").symlink_to(source)
    (source / "cat" / "3.png").symlink_to(elsewhere / "2.png")
    (source / "cat" / "gone.png").symlink_to(elsewhere / "nothing.png")
    found, listing = entries_of(source, tmp_path)
    assert {name: entry.label for name, entry in found.items()} == {"cat/1.png": 0, "cat/3.png": 0, "dog/2.png": 1}
    assert listing.class_names == ("cat", "dog")


def test_a_tar_cut_off_between_two_members_is_named(tmp_path, pngs):
    whole = linked_tar({"0.png": pngs[0], "1.png": pngs[1]}, {})
    first = 512 + -(-len(pngs[0]) // 512) * 512      # a header, and the data in whole blocks
    (tmp_path / "cut.tar").write_bytes(whole[:first])
    with pytest.raises(DataError, match=r"cut\.tar: not a complete tar archive \(it ends without"):
        entries_of(tmp_path / "cut.tar", tmp_path)
    (tmp_path / "whole.tar").write_bytes(whole)
    assert len(entries_of(tmp_path / "whole.tar", tmp_path)[0]) == 2


def test_backslashes_in_a_zip_are_folders(tmp_path, pngs):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("pets\\cat\\1.png", "pets\\dog\\1.png"):
            archive.writestr(name, pngs[0])
    found, listing = entries_of(tmp_path / "x.zip", tmp_path)
    assert listing.class_names == ("cat", "dog")
    assert found["pets/dog/1.png"].place.decoded(AS_STORED).image.size == Image.open(io.BytesIO(pngs[0])).size


@pytest.mark.parametrize("suffix", [".JPE", ".jfif", ".avif", ".jp2", ".Tif"])
def test_less_common_suffixes_are_images_too(tmp_path, pngs, suffix):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / f"a{suffix}").write_bytes(pngs[0])
    assert list(entries_of(tmp_path / "x", tmp_path)[0]) == [f"a{suffix}"]


def test_a_compressed_tar_that_expands_too_much_is_refused(tmp_path):
    (tmp_path / "bomb.tar.gz").write_bytes(tar_of({"zeros.png": bytes(150 * 2**20)}, "w:gz"))
    with pytest.raises(DataError, match="decompression bomb"):
        entries_of(tmp_path / "bomb.tar.gz", tmp_path)
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("suffix, mode", [(".tar", "w"), (".tar.gz", "w:gz"), (".zip", None)])
def test_a_truncated_archive_is_named(tmp_path, pngs, suffix, mode):
    source = tmp_path / f"cut{suffix}"
    if mode:
        whole = tar_of({f"{i}.png": data for i, data in enumerate(pngs)}, mode)
    else:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.png", pngs[0])
        whole = file.getvalue()
    source.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(DataError, match=f"cut{suffix}.*(archive|decompressed)"):
        entries_of(source, tmp_path)


def test_a_missing_or_unusable_source_is_an_error_with_a_hint(tmp_path):
    (tmp_path / "faces.tar").write_bytes(tar_of({"readme.txt": b"nothing"}))
    (tmp_path / "empty").mkdir()
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "0.parquet").write_bytes(b"PAR1")
    (tmp_path / "table.csv").write_text("a,b")
    cases = {
        str(tmp_path / "facex.tar"): "there is faces.tar",
        str(tmp_path / "faces.tar"): "no images found",
        str(tmp_path / "empty"): "no images found.",
        str(tmp_path / "parquet"): "0.parquet: not a complete table",
        str(tmp_path / "table.csv"): "not a known kind of source",
        str(tmp_path / "no-{000..003}.tar"): "does not exist",
        "https://host/x.tar": "stream_images",
        "pipe:cat x.tar": "stream_images",
    }
    for source, words in cases.items():
        with pytest.raises(DataError) as caught:
            entries_of(source, tmp_path)
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["builtin:photo", "builtin:photos?x=2", "builtin:power-law?exponent=x", "builtin:photos?val=-1"])
def test_a_misspelt_builtin_is_a_recipe_error(name):
    with pytest.raises(RecipeError, match="builtin"):
        find_source(name)


def test_the_digest_depends_on_content_of_archives_and_sizes_in_folders_but_not_on_the_path(tmp_path, pngs):
    for where, data in (("a", pngs[0]), ("b", pngs[0]), ("c", pngs[1])):
        (tmp_path / where / "photos").mkdir(parents=True)
        (tmp_path / where / "photos" / "1.png").write_bytes(data)
        (tmp_path / where / "x.tar").write_bytes(tar_of({"1.png": data}))
    for name in ("photos", "x.tar"):
        a, b, c = (find_source(str(tmp_path / where / name)).digest() for where in "abc")
        assert a == b != c
    assert find_source("builtin:photos").digest() != find_source("builtin:photos?val=8").digest()


def test_every_other_file_of_a_folder_is_left_out_with_the_reason(tmp_path, pngs):
    folder = tmp_path / "set"
    (folder / ".git").mkdir(parents=True)
    (folder / "more").mkdir()
    for name, data in {
        "a.png": pngs[0], "without-suffix": pngs[1], "b.0001": pngs[2], "c.dat": pngs[3], "broken.png": b"", "phone.heic": b"..",
        "notes.txt": pngs[4], "README": b"BM is not an image", "list.json": b"[]", ".DS_Store": b"", ".git/x.png": pngs[5],
        "more/__MACOSX": b"", "weights.ckpt": b"PK", "d.PnG": pngs[6],
    }.items():  # fmt: skip
        (folder / name).write_bytes(data)
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "more" / "up").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    entries, listing = entries_of(folder, tmp_path)
    assert set(entries) == {"a.png", "without-suffix", "b.0001", "c.dat", "broken.png", "phone.heic", "d.PnG"}
    assert dict(listing.left_out) == {
        "notes.txt": "not an image (.txt)", "README": "not an image that can be read (without a suffix)",
        "list.json": "not an image (.json)", ".DS_Store": "hidden", ".git": "hidden folder", "more/__MACOSX": "hidden",
        "weights.ckpt": "not an image that can be read (.ckpt)", "gone.png": "link to nothing",
        "more/up": "link to a folder that contains it", "pipe.png": "not a regular file",
    }  # fmt: skip


def test_every_other_member_of_an_archive_is_left_out_with_the_reason(tmp_path, pngs):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in {"a.png": pngs[0], "b": pngs[1], "notes.md": b"", ".c.png": b"", "a.png ": b""}.items():
            for _ in range(1 + (name == "a.png")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        for name, kind, target in (
            ("device.png", tarfile.CHRTYPE, ""), ("gone.png", tarfile.SYMTYPE, "no.png"), ("d", tarfile.DIRTYPE, ""),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    (tmp_path / "x.tar").write_bytes(file.getvalue())
    entries, listing = entries_of(tmp_path / "x.tar", tmp_path)
    assert set(entries) == {"a.png", "b"}
    assert dict(listing.left_out) == {
        "notes.md": "not an image (.md)", ".c.png": "hidden", "a.png ": "not an image that can be read (without a suffix)",
        "a.png": "replaced by a later member of the same name", "device.png": "not a regular file",
        "gone.png": "link to nothing in the archive",
    }  # fmt: skip


def test_links_to_folders_inside_a_tar_count_where_they_stand(tmp_path, pngs):
    links = {"x/dog": (tarfile.SYMTYPE, "cat"), "x/cat/loop": (tarfile.SYMTYPE, "..")}
    (tmp_path / "x.tar").write_bytes(linked_tar({"x/cat/1.png": pngs[0], "x/cat/2.png": pngs[1]}, links))
    entries, _ = entries_of(tmp_path / "x.tar", tmp_path)
    once = {"x/cat/1.png", "x/cat/2.png", "x/dog/1.png", "x/dog/2.png"}
    assert once <= set(entries) and len(entries) == 6        # the circle is followed once
    assert entries["x/dog/2.png"].place.read() == pngs[1]


def test_symbolic_links_in_a_zip_count_where_they_stand(tmp_path, pngs):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("cat/1.png", pngs[0])
        for name, target in (("dog/1.png", "../cat/1.png"), ("dog/2.png", "/etc/passwd")):
            link = zipfile.ZipInfo(name)
            link.external_attr = 0o120777 << 16
            archive.writestr(link, target)
    entries, listing = entries_of(tmp_path / "x.zip", tmp_path)
    assert {name: entry.label for name, entry in entries.items()} == {"cat/1.png": 0, "dog/1.png": 1}
    assert entries["dog/1.png"].place.read() == pngs[0]
    assert listing.left_out == (("dog/2.png", "link to nothing in the archive"),)


def test_images_outside_the_split_folders_are_an_error_with_two_ways_on(packed, tmp_path, pngs):
    members = {"train/cat/1.png": pngs[0], "train/dog/1.png": pngs[1], "val/cat/1.png": pngs[2], "thumb.png": pngs[3]}
    said = r"1 of 4 images belong neither to train nor to val, the first thumb\.png\.[\s\S]*or rename"
    with pytest.raises(DataError, match=said):
        entries_of(packed(members), tmp_path)


def test_deeper_folders_are_said_to_be_no_class_folders(packed, tmp_path, pngs):
    _, listing = entries_of(packed({"a/b/1.png": pngs[0], "a/c/1.png": pngs[1], "d/e/1.png": pngs[2]}), tmp_path)
    assert listing.unlabelled == "3 of 3 images are not directly in a class folder, the first a/b/1.png"


def test_images_of_a_split_that_is_not_used_are_left_out(packed, tmp_path, pngs):
    members = {"train/1.png": pngs[0], "val/2.png": pngs[1], "test/3.png": pngs[2]}
    _, listing = entries_of(packed(members), tmp_path)
    assert listing.left_out == (("test/3.png", "split test: val is used for validation"),)


def test_archives_in_subfolders_are_named(tmp_path, pngs):
    (tmp_path / "set" / "part").mkdir(parents=True)
    (tmp_path / "set" / "part" / "0.tar").write_bytes(tar_of({"a.png": pngs[0]}))
    with pytest.raises(DataError, match=r"no images found, but 1 ending in \.tar\.[\s\S]*/\*/\*\.tar"):
        entries_of(tmp_path / "set", tmp_path)


def test_a_member_without_a_name_is_left_out(tmp_path, pngs):
    (tmp_path / "x.tar").write_bytes(tar_of({"": pngs[0], ".": pngs[1], "con.png": pngs[2]}))
    entries, listing = entries_of(tmp_path / "x.tar", tmp_path)
    assert list(entries) == ["con.png"]
    assert [other.reason for other in listing.left_out] == ["member without a name"] * 2


def test_a_damaged_bzip2_is_named(tmp_path, pngs):
    data = bytearray(bz2.compress(tar_of({"a.png": pngs[0]})))
    data[len(data) // 2] ^= 255
    (tmp_path / "x.tar.bz2").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.tar\.bz2: cannot be decompressed"):
        entries_of(tmp_path / "x.tar.bz2", tmp_path)


def test_a_pattern_of_too_many_names_is_refused_at_once():
    with pytest.raises(DataError, match="the pattern names more than 100,000 files"):
        find_source("s-{0..99999999}.tar")
