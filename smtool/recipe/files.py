"""Read recipes, apply overrides and validate."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from smtool.config import Config
from smtool.errors import RecipeError
from smtool.recipe.catalog import find, read_text, run_name
from smtool.recipe.problems import raise_problems, validation_problems
from smtool.recipe.training import TrainingTables
from smtool.storage import shortened

Tables = TypeVar("Tables", bound=Config)


@dataclass(frozen=True)
class Recipe(Generic[Tables]):
    """A validated recipe: its tables, the text of the file, the name of its run, and the path of the file."""

    tables: Tables
    text: str
    name: str
    path: Path

    def resolved(self) -> dict[str, Any]:
        """All keys with their values, including defaults; tables that are None are left out, because TOML has no null."""
        return self.tables.model_dump(mode="json", exclude_none=True)

    def as_resolved_now(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Resolved values of an earlier version, completed with the defaults of keys that are new in this version.

        The default of a new key must therefore be the behavior before the key existed. A changed default has no effect here,
        because resolved values contain all keys of their version. Values that are no longer valid are returned unchanged.
        """
        try:
            return type(self.tables).model_validate(values).model_dump(mode="json", exclude_none=True)
        except ValidationError:
            return dict(values)

    def resolved_toml(self) -> str:
        import tomli_w

        return tomli_w.dumps(self.resolved())


_KEY_AND_VALUE = re.compile(r"""((?:"[^"\n]*"|'[^'\n]*'|[^="'\n])+)=(.*)""", re.DOTALL)      # split at the first = outside quotes


def load(
    recipe: str, kind: type[Tables], overrides: Sequence[str] = (), *, weights_dir: Path | None = None
) -> Recipe[Tables]:
    """Read a recipe, apply KEY=VALUE overrides and validate. Raises one RecipeError that lists all problems.

    weights_dir: searched first for the weights of frozen encoders.
    """
    path = find(recipe)
    text = read_text(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}.") from error
    for override in overrides:
        _apply(values, override)
    if issubclass(kind, TrainingTables):
        values, contradictions = kind.completed(values, weights_dir)
        raise_problems(path, contradictions)
    try:
        tables = kind.model_validate(values)
    except ValidationError as error:
        raise_problems(path, validation_problems(error, kind), cause=error)
    raise_problems(path, [f"{key}: {sentence}" for key, sentence in getattr(tables, "problems", list)()])
    return Recipe(tables, text, run_name(path), path)


def overridden(tables: Tables, overrides: Sequence[str], path: Path) -> Tables:
    """Tables with KEY=VALUE overrides, validated. path: the file that a RecipeError names."""
    values = tables.model_dump(mode="json", exclude_none=True)
    for override in overrides:
        _apply(values, override)
    try:
        return type(tables).model_validate(values)
    except ValidationError as error:
        raise_problems(path, validation_problems(error, type(tables)), cause=error)


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one dotted key in the raw tables; `KEY=` without a value removes it. Parts with a dot are quoted, as in TOML."""
    key, parts, text = _parsed(override)
    removing = not text
    table = values
    for part in parts[:-1]:
        table = table.get(part, {}) if removing else table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {shortened(override)}: `{part}` is a value, not a table.")
    if not removing:
        table[parts[-1]] = _value(text)
    elif table.pop(parts[-1], None) is None:
        near = [name for name in table if name.startswith(parts[-1][:3])] or list(table)
        there = f"There are {', '.join(near)}." if near else "Remove this --set."
        raise RecipeError(f"--set {shortened(override)}: the recipe has no `{key}` to remove.", hint=there)


def _parsed(override: str) -> tuple[str, list[str], str]:
    """Split KEY=VALUE: (key, its parts, text of the value)."""
    expected = RecipeError(f"--set {shortened(override)}: expected KEY=VALUE, such as --set optimizer.lr=1e-4.")
    halves = _KEY_AND_VALUE.fullmatch(override)
    if halves is None:
        raise expected
    key, text = (half.strip() for half in halves.groups())
    try:
        nested = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError as error:
        raise expected from error
    parts: list[str] = []
    while isinstance(nested, dict) and len(nested) == 1:
        parts += nested
        nested = nested[parts[-1]]
    if nested != 0:
        raise expected
    return key, parts, text


def _value(text: str) -> Any:
    """The TOML value of a command-line text. Text that is not TOML is a string, so that its quotes can be left out."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
