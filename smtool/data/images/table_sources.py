"""The tables of images in a folder: parquet files, or Arrow files as Hugging Face's `datasets.save_to_disk` writes them."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from smtool.data.images.columns import embedded_columns
from smtool.data.images.kinds import LeftOut, is_hidden
from smtool.data.images.label_files import is_label_file
from smtool.data.images.splits import split_word
from smtool.data.images.table_files import TABLE_SUFFIXES, open_table
from smtool.errors import DataError

_OF = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")
STATE, SPLITS = "state.json", "dataset_dict.json"
"""Files of `save_to_disk`: the names of a data set's Arrow files; the names of the folders that hold its splits."""
DESCRIBING = (STATE, SPLITS, "dataset_info.json")
"""Files that describe tables, and are read or repeat what the tables say."""

NOT_NAMED = "an image file that no row of the tables names"


def is_table(path: Path) -> bool:
    return path.name.lower().endswith(TABLE_SUFFIXES)


def holds_tables(folder: Path) -> bool:
    """Whether a folder or one of its subfolders holds a table that is not a label file."""
    names = (name for _, _, files in os.walk(folder, followlinks=False) for name in files)
    return any(_is_data(name) for name in names)


def tables_in(folder: Path, files: Iterable[str]) -> tuple[list[str], list[LeftOut]]:
    """The tables of a data set among the files of a folder, given by path in it; and tables that are not used, with the reasons.

    Raises DataError for missing files, for the tables of several data sets, and if an Arrow file of `save_to_disk` is an index.
    """
    found = sorted(name for name in files if _is_data(name))
    others: list[LeftOut] = []
    for state in sorted({str(PurePosixPath(name).parent / STATE) for name in found if name.lower().endswith(".arrow")}):
        if (folder / state).is_file():
            parts = _parts_of(folder, state)
            beside = [name for name in found if PurePosixPath(name).parent == PurePosixPath(state).parent and name not in parts]
            others += [LeftOut(name, f"not named in {STATE}") for name in beside]
            found = [name for name in found if name not in beside]
    _refuse_missing_splits(folder)
    _refuse_missing_parts(folder, found)
    _refuse_several_sets(folder, found)
    return found, others


def has_images(folder: Path, tables: Iterable[str]) -> bool:
    """Whether one of these tables holds images, or declares a column of them."""
    return any(embedded_columns(open_table(folder / name, name).schema) for name in tables)


def relative_names(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their path below the folder that they share."""
    paths = sorted(paths)
    base = os.path.commonpath([path.parent for path in paths])
    return {Path(os.path.relpath(path, base)).as_posix(): path for path in paths}


def _is_data(name: str) -> bool:
    return name.lower().endswith(TABLE_SUFFIXES) and not is_hidden(name) and not is_label_file(name)


def _parts_of(folder: Path, state: str) -> set[str]:
    """The Arrow files that a state.json names."""
    content = _json(folder / state)
    named = content.get("_data_files") if isinstance(content, dict) else None
    parts_named = named if isinstance(named, list) else []
    names = [str(part["filename"]) for part in parts_named if isinstance(part, dict) and isinstance(part.get("filename"), str)]
    if not names or len(names) < len(parts_named):
        raise DataError(f"{folder / state}: it names no Arrow files.", hint="Save the data set again with save_to_disk.")
    if content.get("_indices_data_files") or content.get("_indices_files"):
        raise DataError(
            f"{folder / state}: the data set is a selection of its rows by an index.",
            hint="Save it again with a current version of datasets, or after flatten_indices().",
        )
    parts = {str(PurePosixPath(state).parent / name) for name in names}
    for part in sorted(parts):
        if not (folder / part).is_file():
            raise DataError(f"{folder / part} is missing, which {STATE} names.", hint="Copy the folder again.")
    return parts


def _refuse_missing_splits(folder: Path) -> None:
    if not (folder / SPLITS).is_file():
        return
    content = _json(folder / SPLITS)
    splits = content.get("splits") if isinstance(content, dict) else None
    for split in splits if isinstance(splits, list) else []:
        if not (folder / str(split) / STATE).is_file():
            raise DataError(f"{folder / str(split) / STATE} is missing: {SPLITS} names split {split}.", hint="Copy it again.")


def _refuse_missing_parts(folder: Path, names: Iterable[str]) -> None:
    """Raise DataError if a file NAME-00000-of-00003 is missing."""
    parts: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for name in names:
        if part := _OF.fullmatch(name):
            parts[part[1], part[3], part[4]].add(part[2])
    for (stem, total, suffix), numbers in sorted(parts.items()):
        missing = [f"{number:05d}" for number in range(int(total)) if f"{number:05d}" not in numbers]
        if missing:
            raise DataError(
                f"{folder}: {len(missing):,} of {int(total):,} files of {stem} are missing,"
                f" the first {stem}-{missing[0]}-of-{total}{suffix}.",
                hint=f"Download them, or prepare the others alone with a pattern: '{folder / stem}-*{suffix}'.",
            )


def _refuse_several_sets(folder: Path, names: Iterable[str]) -> None:
    """Raise DataError if folders that are not splits hold tables: configurations of a data set, or several data sets."""
    sets: dict[str, str] = {}
    for name in names:
        parts = PurePosixPath(name).parts[:-1]
        sets.setdefault("/".join(part for part in parts if not split_word(part)), name)
    if len(sets) > 1:
        first, second, *_ = sorted(sets)
        raise DataError(
            f"{folder} holds tables in {len(sets):,} folders that are no splits, such as {first or '.'} and {second}.",
            hint=f"Pass one of them, {folder / second}; or, for parts of one data set, a pattern for all: '{folder}/*/*'.",
        )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file ({error}).", hint="Copy it again.") from error
