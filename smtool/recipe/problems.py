"""What is wrong with a recipe, in sentences: which key, what was found, what would work."""

import difflib
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin, overload

from pydantic import BaseModel, ValidationError

from smtool.config import Section
from smtool.errors import RecipeError


@overload
def raise_problems(path: Path, problems: Sequence[str], *, cause: Exception) -> NoReturn: ...
@overload
def raise_problems(path: Path, problems: Sequence[str]) -> None: ...
def raise_problems(path: Path, problems: Sequence[str], *, cause: Exception | None = None) -> None:
    """Raise one RecipeError that lists every problem; with no problem, do nothing."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise RecipeError("\n  ".join([f"{path}: {count}", *problems])) from cause


def validation_problems(error: ValidationError, kind: type[Section]) -> list[str]:
    """One line for each key that pydantic refused; the members of a union that all failed share one."""
    lines: dict[str, list[str]] = {}
    for detail in error.errors():
        key, table = _located(kind, detail["loc"])
        lines.setdefault(key, []).append(_sentence(detail, table))
    return [f"{key}: {' or '.join(dict.fromkeys(sentences))}" for key, sentences in lines.items()]


def closest(word: str, words: Iterable[str]) -> str | None:
    """The word that a typo most likely stands for."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)), None)


def _sentence(detail: Any, table: type[BaseModel]) -> str:
    found = f"but is {detail['input']!r}"
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            guess = closest(str(detail["loc"][-1]), table.model_fields)
            hint = f" Did you mean `{guess}`?" if guess else f" Known here: {', '.join(table.model_fields)}."
            return f"no such key.{hint}"
        case "missing":
            return "is required, but missing."
        case "greater_than":
            return f"must be greater than {context['gt']}, {found}."
        case "greater_than_equal":
            return f"must be at least {context['ge']}, {found}."
        case "less_than":
            return f"must be less than {context['lt']}, {found}."
        case "less_than_equal":
            return f"must be at most {context['le']}, {found}."
        case "literal_error":
            return f"must be {context['expected']}, {found}."
        case "value_error":
            return f"{context['error']}."
        case "model_type" | "model_attributes_type":
            return f"must be a table, {found}."
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, {found}."


def _located(kind: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, type[BaseModel]]:
    """The dotted key of pydantic's location, without its marks for members of unions; and the table that the key is in."""
    table: type[BaseModel] = kind
    annotation: Any = kind
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
            continue
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            table = annotation
            key += f".{part}" if key else part
            field = table.model_fields.get(part)
            annotation = None if field is None else _table_in(field.annotation)
    return key, table


def _table_in(annotation: Any) -> Any:
    """The table class that a field's type holds, also as `Table | None`; None for plain values."""
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return next((member for member in members if isinstance(member, type) and issubclass(member, BaseModel)), None)
