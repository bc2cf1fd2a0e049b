"""Messages about errors in a recipe: the key, the value found, and what is valid."""

import difflib
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin, overload

from pydantic import BaseModel, ValidationError

from smtool.config import Config
from smtool.errors import RecipeError
from smtool.storage import shortened

TAG = "kind"
"""The key that selects one of several models for a table."""
_BUT_IS = ", but is "
_SHOWN = 20      # largest number of problems in a message


@overload
def raise_problems(path: Path, problems: Sequence[str], *, cause: Exception) -> NoReturn: ...
@overload
def raise_problems(path: Path, problems: Sequence[str]) -> None: ...
def raise_problems(path: Path, problems: Sequence[str], *, cause: Exception | None = None) -> None:
    """Raise one RecipeError that lists all problems; do nothing if there are none."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        rest = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        shown = [*(shortened(problem, 250) for problem in problems[:_SHOWN]), *rest]
        raise RecipeError("\n  ".join([f"{path}: {count}", *shown])) from cause


def validation_problems(error: ValidationError, kind: type[Config]) -> list[str]:
    """One line for each key that pydantic rejected; the alternatives of a union are joined in one line."""
    lines: dict[str, list[str]] = {}
    for detail in error.errors():
        key, table = _located(kind, detail["loc"])
        if detail["type"].startswith("union_tag"):
            key = f"{key}.{TAG}"
        lines.setdefault(key, []).append(_sentence(detail, table))
    return [f"{key}: {_alternatives(list(dict.fromkeys(sentences)))}" for key, sentences in lines.items()]


def closest(word: str, words: Iterable[str]) -> str | None:
    """The most similar of `words`, as a suggestion for a misspelled word; None if none is similar."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)), None)


def _alternatives(sentences: list[str]) -> str:
    """Join the messages of a union's members with "or"; a value found that they share is stated once, at the end."""
    heads, seams, tails = zip(*(sentence.rpartition(_BUT_IS) for sentence in sentences), strict=True)
    if all(seams) and len(set(tails)) == 1:
        return f"{' or '.join(heads)}{_BUT_IS}{tails[0]}"
    return " or ".join(sentences)


def _sentence(detail: Any, table: type[BaseModel]) -> str:
    found = f"but is {shortened(repr(detail['input']))}"
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            guess = closest(str(detail["loc"][-1]), table.model_fields)
            hint = f" Did you mean `{guess}`?" if guess else f" Known here: {', '.join(table.model_fields)}."
            return f"no such key.{hint}"
        case "missing" | "union_tag_not_found":
            return "is required, but missing."
        case "union_tag_invalid":
            return f"must be {' or '.join(context['expected_tags'].rsplit(', ', 1))}, but is {shortened(repr(context['tag']))}."
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
            return f"{shortened(str(context['error']))}."
        case "model_type" | "model_attributes_type":
            return f"must be a table, {found}."
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, {found}."


def _located(kind: type[Config], location: tuple[int | str, ...]) -> tuple[str, type[Config]]:
    """The dotted key of pydantic's location, without its tags for members of unions, and the model of the key's table."""
    table, tables, marked = kind, [kind], True
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
        elif not marked and (members := [member for member in tables if _tag(member) == part]):
            tables, marked = members, True      # the tag of a member of a union
        elif tables:
            (table,) = tables
            name = f'"{part}"' if ":" in part else part
            key += f".{name}" if key else name
            field, imported = table.model_fields.get(part), table.imported_table(part)
            tables = _tables_in(field.annotation) if field is not None else [] if imported is None else [imported]
            marked = False
    return key, table


def _tag(table: type[BaseModel]) -> Any:
    return table.model_fields[TAG].default if TAG in table.model_fields else None


def _tables_in(annotation: Any) -> list[type[Config]]:
    """The models in a field's type: one (also for `Table | None`), several that differ by TAG, or none."""
    if get_origin(annotation) is Annotated:
        return _tables_in(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [table for member in get_args(annotation) for table in _tables_in(member)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, Config) else []
