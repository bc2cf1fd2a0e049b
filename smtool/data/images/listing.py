"""The entries of a source: every image with its path and, where the source has them, its label and split."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from smtool.data.images.archives import TarMember, tar_members, unpacked, zip_members
from smtool.data.images.entries import Entry, FileRange, Place
from smtool.data.images.sources import IMAGE_SUFFIXES, Source, image_files, is_hidden, is_synset_tar
from smtool.errors import DataError

_VALIDATION = ("val", "valid", "validation", "test")  # the first of these that a source has becomes its validation split


@dataclass(frozen=True)
class Listing:
    """The entries of a source, sorted by id.

    class_names: by label, () if classes have no names. unlabelled: why images in several folders have no labels, or "".
    """

    entries: tuple[Entry, ...]
    class_names: tuple[str, ...] = ()
    unlabelled: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the photographs that entries were cut from, sorted; () if any entry has none."""
        names = {entry.group for entry in self.entries}
        return () if None in names else tuple(sorted(name for name in names if name is not None))

    @property
    def has_splits(self) -> bool:
        return any(entry.split is not None for entry in self.entries)


def list_entries(source: Source, *, size: int, scratch: Path) -> Listing:
    """List all images of a source. Raises DataError if there are none.

    scratch: folder for decompressed tars; size: side in pixels for which built-in images are made.
    """
    if source.builtin:
        return Listing(tuple(source.builtin.entries(size)))
    if source.kind == "folder":
        listing = _from_paths(_folder_images(source.files[0]))
    elif source.kind == "zip":
        listing = _from_paths((name, place) for name, place in zip_members(source.files[0]) if _is_image(name))
    else:
        listing = _from_tars(source, scratch)
    if not listing.entries:
        found = _others(source.files[0]) if source.kind == "folder" else ""
        raise DataError(
            f"{source.files[0]}: no images found{found}.", hint=f"Images are files ending in {', '.join(IMAGE_SUFFIXES)}."
        )
    return listing


def _others(folder: Path) -> str:
    """The most frequent file name ending in the folder, for the message (for example a data set in Parquet)."""
    endings = Counter(path.suffix or path.name for path in folder.rglob("*") if path.is_file())
    return "".join(f", but {count:,} ending in {ending}" for ending, count in endings.most_common(1))


def _folder_images(folder: Path) -> list[tuple[str, Place]]:
    paths = image_files(folder)
    return [(path.relative_to(folder).as_posix(), FileRange(str(path), 0, path.stat().st_size)) for path in paths]


def _from_paths(found: Iterable[tuple[str, Place]]) -> Listing:
    """Labels and splits from the folders of the images: [train|val/][class/]name."""
    places = dict(found)
    base = _common_folder(list(places))
    parts = {name: PurePosixPath(name).parts[base:] for name in places}
    splits = _own_splits({name: (part[0] if len(part) > 1 else "") for name, part in parts.items()})
    if splits:
        parts = {name: parts[name][1:] for name in splits}
        _refuse_labels_of_one_split(parts, splits)
    classes = sorted({part[0] for part in parts.values()})
    labelled = bool(parts) and all(len(part) == 2 for part in parts.values()) and len(classes) > 1
    labels = {name: number for number, name in enumerate(classes)}
    entries = (
        Entry(name, places[name], labels[part[0]] if labelled else None, splits.get(name)) for name, part in sorted(parts.items())
    )
    return Listing(tuple(entries), tuple(classes) if labelled else (), "" if labelled else _why_unlabelled(parts))


def _why_unlabelled(parts: dict[str, tuple[str, ...]]) -> str:
    """The images that keep folders from being class folders: those above or below the folders that hold most of the images."""
    inside = [name for name, part in parts.items() if len(part) == 2]
    if len({parts[name][0] for name in inside}) < 2:
        return ""
    others = sorted(parts.keys() - set(inside))
    are = "is" if len(others) == 1 else "are"
    return f"{len(others):,} of {len(parts):,} images {are} not directly in a class folder, the first {others[0]}"


def _refuse_labels_of_one_split(parts: dict[str, tuple[str, ...]], splits: dict[str, str]) -> None:
    """Raise DataError if only the training images are in class folders (as in ImageNet): all labels would be dropped silently."""
    bare = next((name for name, part in parts.items() if splits[name] == "val" and len(part) == 1), None)
    train = [part for name, part in parts.items() if splits[name] == "train"]
    if bare is not None and all(len(part) == 2 for part in train) and len({part[0] for part in train}) > 1:
        raise DataError(
            f"{bare} is in no class folder, but the training images are in class folders.",
            hint="Sort the validation images into class folders too, or prepare the train folder alone and hold out a part.",
        )


def _common_folder(names: list[str]) -> int:
    """Number of leading folders that all paths share; split and class folders are not among them."""
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    shared = 0
    while folders and len({folder[: shared + 1] for folder in folders}) == 1 and len(folders[0]) > shared:
        shared += 1
    return shared


def _own_splits(words: dict[str, str]) -> dict[str, str]:
    """Name -> "train" or "val" if every name has a split word and both splits occur, else {}. Other splits are left out."""
    marks = {name: word.lower() for name, word in words.items()}
    validation = next((word for word in _VALIDATION if word in marks.values()), None)
    if validation is None or not {"train"} <= set(marks.values()) <= {"train", *_VALIDATION}:
        return {}
    split = {"train": "train", validation: "val"}
    return {name: split[word] for name, word in marks.items() if word in split}


def _from_tars(source: Source, scratch: Path) -> Listing:
    archives = {path.name: tar_members(unpacked(path, scratch), path.name) for path in source.files}
    members = [member for content in archives.values() for member in content]
    if len(archives) == 1 and members and all(is_synset_tar(member.name) for member in members):  # ImageNet's tar of tars
        archives = {member.name: tar_members(Path(member.data.path), member.name, member.data) for member in members}
    if all(is_synset_tar(name) for name in archives):
        synsets = {name: name.removesuffix(".tar") for name in archives}
        return _from_paths((f"{synsets[name]}/{m.name}", m.data) for name, content in archives.items() for m in _images(content))
    if any(member.name.endswith(".cls") for member in members) or len(archives) > 1:
        return _from_shards(archives)
    return _from_paths((member.name, member.data) for member in _images(members))


def _from_shards(archives: dict[str, list[TarMember]]) -> Listing:
    """Webdataset shards: labels from .cls members, groups from .json ones, splits from the shards' names."""
    splits = _own_splits({name: _split_word(name) for name in archives})
    entries = []
    for name, members in archives.items():
        if splits and name not in splits:
            continue
        prefix = f"{name}/" if len(archives) > 1 else ""
        entries += [replace(entry, id=prefix + entry.id, split=splits.get(name)) for entry in _shard_entries(name, members)]
    if len({entry.label is None for entry in entries}) > 1:
        bare = next(entry.id for entry in entries if entry.label is None)
        raise DataError(f"{bare} has no .cls member, but other images of the source have one.")
    unlabelled = "" if entries and entries[0].label is not None else _unused_labels(archives)
    return Listing(tuple(sorted(entries, key=lambda entry: entry.id)), unlabelled=unlabelled)


def _unused_labels(archives: dict[str, list[TarMember]]) -> str:
    """The .cls members of samples whose names hold dots; "" where there are none."""
    unused = [member.name for members in archives.values() for member in members if member.name.endswith(".cls")]
    if not unused:
        return ""
    are = "member is" if len(unused) == 1 else "members are"
    return f"{len(unused):,} .cls {are} not used, the first {unused[0]}: in webdataset a sample's name ends at its first dot"


def _shard_entries(archive: str, members: list[TarMember]) -> list[Entry]:
    notes: dict[str, dict[str, FileRange]] = {"cls": {}, "json": {}}
    for member in members:
        key, _, suffix = _key(member.name)
        if suffix in notes:
            notes[suffix][key] = member.data
    entries = []
    for member in _images(members):
        key = _key(member.name)[0]
        label = _label(archive, key, notes["cls"][key]) if key in notes["cls"] else None
        entries.append(Entry(member.name, member.data, label, group=_group(notes["json"].get(key))))
    return entries


def _key(name: str) -> tuple[str, str, str]:
    """(key, dot, suffix) by webdataset's rule: a sample's key ends at the first dot of the file name."""
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    return folder + slash + stem, dot, suffix


def _label(archive: str, key: str, data: FileRange) -> int:
    text = data.read().decode("ascii", "replace").strip()
    if not re.fullmatch(r"\d{1,9}", text):
        raise DataError(f"{archive}: {key}.cls holds {text[:40]!r}, not a class number.")
    return int(text)


def _group(data: FileRange | None) -> str | None:
    try:
        note = json.loads(data.read()) if data else None
    except ValueError:
        return None
    group = note.get("group") if isinstance(note, dict) else None
    return group if isinstance(group, str) else None


def _split_word(name: str) -> str:
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word in ("train", *_VALIDATION)]
    return words[0] if len(words) == 1 else ""


def _images(members: list[TarMember]) -> list[TarMember]:
    return [member for member in members if _is_image(member.name)]


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)
