"""Labels given as numbers or names, as class numbers. All images have one, or none has."""

import re
from collections.abc import Mapping
from typing import Any

from smtool.errors import DataError

_LARGEST = 10**9


def numbered(
    values: Mapping[str, Any], declared: tuple[str, ...], where: str
) -> tuple[dict[str, int], tuple[str, ...], str]:
    """(class number by image, names of the classes, "") of labels by image; ({}, (), the reason) where no image has a label.

    declared: names by number, or (). where: names the labels in messages. None, "" and -1 stand for no label. Names get numbers
    in alphabetical order. Raises DataError if only some images have a label, and for labels that are not classes.
    """
    given = {id: value for id, value in values.items() if value is not None and value != "" and value != -1 and value != "-1"}
    if not given:
        return {}, (), f"no image has a label in {where}"
    if len(given) < len(values):
        bare = next(id for id in values if id not in given)
        raise DataError(
            f"{len(values) - len(given):,} of {len(values):,} images have no label in {where}, the first {bare}.",
            hint="Add the missing labels, or use --labels none.",
        )
    if all(isinstance(value, str) for value in given.values()):
        texts = {id: value.strip() for id, value in given.items()}
        if any(not re.fullmatch("0|[1-9][0-9]{0,8}", text) for text in texts.values()):
            return _named(texts, declared, where)
        given = {id: int(text) for id, text in texts.items()}
    return _checked(given, declared, where), declared, ""


def _named(texts: Mapping[str, str], declared: tuple[str, ...], where: str) -> tuple[dict[str, int], tuple[str, ...], str]:
    names = declared or tuple(sorted(set(texts.values())))
    numbers = {name: number for number, name in enumerate(names)}
    for id, text in texts.items():
        if text not in numbers:
            raise DataError(f"{where}: label {text[:40]!r} of {id} is not one of the {len(names):,} declared classes.")
    return {id: numbers[text] for id, text in texts.items()}, names, ""


def _checked(values: Mapping[str, Any], declared: tuple[str, ...], where: str) -> dict[str, int]:
    largest = len(declared) - 1 if declared else _LARGEST
    for id, value in values.items():
        if not isinstance(value, int) or not 0 <= value <= largest:
            raise DataError(
                f"{where}: label {str(value)[:40]!r} of {id} is not a class number from 0 to {largest:,}.",
                hint="Labels are numbers or names of classes; or use --labels none.",
            )
    return {id: int(value) for id, value in values.items()}
