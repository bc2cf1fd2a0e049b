"""The training and validation images that a source itself tells apart, by the names of folders or of archives."""

import re
from collections.abc import Mapping
from typing import Literal

from smtool.data.images.kinds import LeftOut
from smtool.errors import DataError

_VALIDATION = ("val", "valid", "validation", "test")  # the first of these that a source has becomes its validation split


def own_splits(words: Mapping[str, str], of: Literal["folders", "archives", "files"]) -> tuple[dict[str, str], list[LeftOut]]:
    """Name -> "train" or "val" where every name has a split's word and both splits occur, else {}; and names of other splits.

    words: for each name, the folder or word that may name its split. Raises DataError if only some names belong to a split.
    """
    marks = {name: word.lower() for name, word in words.items()}
    found = set(marks.values()) & {"train", *_VALIDATION}
    validation = next((word for word in _VALIDATION if word in found), None)
    if validation is None or "train" not in found:
        return {}, []
    if outside := sorted(name for name, mark in marks.items() if mark not in found):
        raise DataError(
            f"{len(outside):,} of {len(marks):,} {'images' if of == 'folders' else of} belong neither to train nor to"
            f" {validation}, the first {outside[0]}.",
            hint=f"Move them into one of these {of}; or rename the {of} train and {validation}, if they are not splits.",
        )
    split = {"train": "train", validation: "val"}
    unused = [
        LeftOut(name, f"split {mark}: {validation} is used for validation") for name, mark in marks.items() if mark not in split
    ]
    return {name: split[mark] for name, mark in marks.items() if mark in split}, unused


def split_word(name: str) -> str:
    """The word in an archive's path that names its split, "" if there is none or several different ones."""
    words = {word for word in re.split(r"[^a-z]+", name.lower()) if word in ("train", *_VALIDATION)}
    return words.pop() if len(words) == 1 else ""
