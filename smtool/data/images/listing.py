"""The entries of a source: every image with its path and, where there are any, its label and split; and what is left out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from smtool.data.images.archives import Members, tar_members, unpacked, zip_members
from smtool.data.images.columns import AUTO, LabelRule
from smtool.data.images.entries import Entry, FileRange, Place, Stored
from smtool.data.images.folders import folder_images, label_files
from smtool.data.images.kinds import HIDDEN, IMAGE_SUFFIXES, LeftOut, pick_images, suffix_of
from smtool.data.images.label_files import LABEL_FILES, STYLEGAN, is_label_file
from smtool.data.images.labels import Folders, choose_labels
from smtool.data.images.samples import BY_FIRST_DOT, SampleRule, sample_listing
from smtool.data.images.sources import Source, is_synset_tar
from smtool.data.images.splits import own_splits
from smtool.data.images.table_sources import NOT_NAMED, is_table, relative_names
from smtool.data.images.tables import named_files, table_rows
from smtool.errors import DataError, RecipeError

_TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow")


@dataclass(frozen=True)
class Listing:
    """The entries of a source, sorted by id.

    class_names: by label, () if classes have no names. unlabelled: why images in several folders have no labels, or "".
    left_out: every other file of the source, sorted by id.
    """

    entries: tuple[Entry, ...]
    class_names: tuple[str, ...] = ()
    unlabelled: str = ""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the photographs that entries were cut from, sorted; () if any entry has none."""
        names = {entry.group for entry in self.entries}
        return () if None in names else tuple(sorted(name for name in names if name is not None))

    @property
    def has_splits(self) -> bool:
        return any(entry.split is not None for entry in self.entries)

    def without(self, others: Iterable[LeftOut]) -> "Listing":
        """The listing of the same entries that names these files of the source as left out too."""
        return replace(self, left_out=tuple(sorted([*self.left_out, *others])))


def list_entries(
    source: Source, *, size: int, scratch: Path, samples: SampleRule = BY_FIRST_DOT, labels: LabelRule = AUTO
) -> Listing:
    """List all images of a source. Raises DataError if there are none.

    scratch: folder for decompressed tars and copies of tables; size: side in pixels for which built-in images are made; samples:
    how the members of webdataset shards form samples; labels: where labels come from.
    """
    if labels.image_column is not None and source.kind != "table":
        raise RecipeError(f"--image-column {labels.image_column}: {source.name} is not a table.", hint="Leave it out.")
    if source.kind != "tar":
        _refuse_sample_rule(source, samples)
    if source.builtin:
        return Listing(tuple(source.builtin.entries(size)))
    if source.kind == "folder":
        images, others = folder_images(source.files[0])
        listing = _from_paths(dict(images), label_files(source.files[0], others), others, labels)
    elif source.kind == "zip":
        listing = _from_members(zip_members(source.files[0]), labels)
    elif source.kind == "table":
        listing = _from_tables(source, scratch, labels)
    else:
        listing = _from_tars(source, scratch, samples, labels).without(source.beside)
    if not listing.entries:
        raise _no_images(source, listing)
    return listing


def _refuse_sample_rule(source: Source, samples: SampleRule) -> None:
    """Raise RecipeError for --member or --sample-key where there are no samples of members."""
    if samples.given:
        option = "--sample-key" if samples.member is None else f"--member {samples.member}"
        raise RecipeError(f"{option}: {source.name} is not a tar of webdataset samples.", hint="Leave it out.")


def _no_images(source: Source, listing: Listing) -> DataError:
    """The error names the most frequent kind of the other files, for example a data set in a format that is not supported."""
    endings = Counter(suffix_of(other.id) or PurePosixPath(other.id).name for other in listing.left_out)
    found = "".join(f", but {count:,} ending in {ending}" for ending, count in endings.most_common(1))
    hint = f"Images are files ending in {', '.join(IMAGE_SUFFIXES)}."
    if any(ending in (".tar", ".gz", ".zip") for ending in endings):
        hint = f"Pass the archives themselves, as a path or a pattern such as '{source.files[0]}/*/*.tar'."
    return DataError(f"{source.files[0]}: no images found{found}.", hint=hint)


def _from_members(members: Members, rule: LabelRule) -> Listing:
    images, others = pick_images(members.places.items())
    files = {id: members.places[id] for id, reason in others if is_label_file(id) and reason != HIDDEN}
    return _from_paths(dict(images), files, [*members.left_out, *others], rule)


def _from_tables(source: Source, scratch: Path, rule: LabelRule) -> Listing:
    tables = relative_names(source.files)
    rows = table_rows(tables, rule, scratch)
    folder = source.folder or Path()
    images = {other.id for other in source.beside if other.reason == NOT_NAMED}
    named = {path.relative_to(folder).as_posix() for _, path in named_files(tables, rule)} if images else set()
    if images and images.isdisjoint(named):
        raise DataError(
            f"{folder} holds {len(tables):,} tables of images and {len(images):,} image files, the first {min(images)}.",
            hint=f"Prepare the tables alone with a pattern, such as {source.files[0]}, or move the image files out.",
        )
    beside = (other for other in source.beside if other.id not in named)
    return Listing(rows.entries, rows.class_names, rows.unlabelled, rows.left_out).without(beside)


def _from_paths(
    places: Mapping[str, Place], files: Mapping[str, Stored], others: Sequence[LeftOut], rule: LabelRule
) -> Listing:
    """Splits from the folders of the images, [train|val/][class/]name; labels from these folders or from label files.

    files: the label files of the source by path; others: all its files that are no images, label files among them.
    """
    base = _common_folder(list(places))
    parts = {name: PurePosixPath(name).parts[base:] for name in places}
    splits, unused = own_splits({name: (part[0] if len(part) > 1 else "") for name, part in parts.items()}, "folders")
    if splits:
        parts = {name: parts[name][1:] for name in splits}
    labelled = all(len(part) == 2 for part in parts.values()) and len({part[0] for part in parts.values()}) > 1
    folders = Folders(
        tuple(sorted(parts)),
        {name: part[0] for name, part in parts.items()} if labelled else {},
        "" if labelled else _why_unlabelled(parts),
    )
    labels = choose_labels(folders, files, {other.id for other in [*unused, *others]} - files.keys(), rule)
    if splits and not labels.numbers and rule.labels == "auto":
        _refuse_labels_of_one_split(parts, splits)
    entries = tuple(Entry(name, places[name], labels.numbers.get(name), splits.get(name)) for name in folders.images)
    unlabelled = [labels.unlabelled] * bool(labels.unlabelled) + ([] if labels.numbers else _unread(others, files, rule))
    reasons = {**{other.id: other for other in others}, **{other.id: other for other in labels.left_out}}
    left_out = [other for other in reasons.values() if other.id not in labels.used]
    return Listing(entries, labels.class_names, "; ".join(unlabelled), tuple(unused)).without(left_out)


def _unread(others: Sequence[LeftOut], files: Mapping[str, Stored], rule: LabelRule) -> list[str]:
    """The first file that may hold labels and is not read, as a reason."""
    names = [id for id, reason in others if suffix_of(id) in _TABLES and id not in files and reason != HIDDEN]
    if not names or rule.labels != "auto":
        return []
    if is_table(Path(names[0])):
        return [f"{names[0]} is not read: a table is a source of its own"]
    return [f"{names[0]} is not read: labels are read from {', '.join(LABEL_FILES[:2])} and {STYLEGAN}"]


def _why_unlabelled(parts: dict[str, tuple[str, ...]]) -> str:
    """Why folders are not class folders: images above or below them. "" if all images are in one folder."""
    others = sorted(name for name, part in parts.items() if len(part) != 2)
    if not others or len({part[:-1] for part in parts.values()}) < 2:
        return ""
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


def _from_tars(source: Source, scratch: Path, samples: SampleRule, rule: LabelRule) -> Listing:
    archives = {name: tar_members(unpacked(path, scratch, name), name) for name, path in _names(source.files).items()}
    nested = next(iter(archives.values())).places if len(archives) == 1 else {}
    if nested and all(is_synset_tar(name) for name in nested):  # ImageNet's tar of tars
        within = {name: place for name, place in nested.items() if isinstance(place, FileRange)}
        archives = {name: tar_members(Path(place.path), name, place) for name, place in within.items()}
    if all(is_synset_tar(name) for name in archives):
        _refuse_sample_rule(source, samples)
        synsets = {name: name.removesuffix(".tar") for name in archives}
        places = {f"{synsets[name]}/{member}": place for name, each in archives.items() for member, place in each.places.items()}
        others = [LeftOut(f"{synsets[name]}/{id}", reason) for name, each in archives.items() for id, reason in each.left_out]
        return _from_members(Members(places, tuple(others)), rule)
    if samples.given or len(archives) > 1 or any(name.endswith(".cls") for each in archives.values() for name in each.places):
        entries, left_out, unlabelled = sample_listing(archives, samples)
        return _chosen(Listing(entries, (), unlabelled, left_out), rule)
    return _from_members(next(iter(archives.values())), rule)


def _chosen(listing: Listing, rule: LabelRule) -> Listing:
    """The listing of shards, without labels if the rule says so. Raises RecipeError if it asks for labels of other sources."""
    if rule.labels == "none":
        entries = tuple(replace(entry, label=None) for entry in listing.entries)
        return replace(listing, entries=entries, unlabelled="--labels none")
    if rule.labels != "auto" or rule.label_column is not None:
        option = f"--labels {rule.labels}" if rule.labels != "auto" else f"--label-column {rule.label_column}"
        raise RecipeError(f"{option} has no effect on shards, whose labels are .cls members.", hint="Leave it out.")
    return listing


def _names(paths: tuple[Path, ...]) -> dict[str, Path]:
    """Archives by file name; by path below their common folder where two file names are equal."""
    if len({path.name for path in paths}) == len(paths):
        return {path.name: path for path in paths}
    common = _common_folder([path.as_posix() for path in paths])
    return {"/".join(path.parts[common:]): path for path in paths}
