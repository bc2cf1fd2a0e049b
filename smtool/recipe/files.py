"""Reading, overriding and validating recipes."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import tomli_w
from pydantic import ValidationError

from smtool.config import Section
from smtool.errors import RecipeError
from smtool.recipe.problems import raise_problems, validation_problems
from smtool.recipe.shelf import find, read_text, run_name

Tables = TypeVar("Tables", bound=Section)


@dataclass(frozen=True)
class Recipe(Generic[Tables]):
    """A validated recipe: its tables, the file's own text, the name of its run, and where it was found."""

    tables: Tables
    text: str
    name: str
    path: Path

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, defaults filled in; tables that are off are absent, since TOML has no None."""
        return self.tables.model_dump(mode="json", exclude_none=True)

    def as_resolved_now(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What an earlier version resolved, as this one would: a key that was not known then has its default.

        So a new key's default must be what was done before there was the key. A default that changed is no such case: every
        version writes all values down, and the old one counts. Values that are refused now come back as they are.
        """
        try:
            return type(self.tables).model_validate(values).model_dump(mode="json", exclude_none=True)
        except ValidationError:
            return dict(values)

    def resolved_toml(self) -> str:
        return tomli_w.dumps(self.resolved())


def load(recipe: str, kind: type[Tables], overrides: Sequence[str] = ()) -> Recipe[Tables]:
    """Read a recipe, apply KEY=VALUE overrides, validate. All problems are raised at once as one RecipeError."""
    path = find(recipe)
    text = read_text(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}.") from error
    for override in overrides:
        _apply(values, override)
    try:
        tables = kind.model_validate(values)
    except ValidationError as error:
        raise_problems(path, validation_problems(error, kind), cause=error)
    raise_problems(path, [f"{key}: {sentence}" for key, sentence in getattr(tables, "problems", list)()])
    return Recipe(tables, text, run_name(path), path)


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one dotted key in the raw tables; `KEY=` without a value removes it."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {override}: expected KEY=VALUE, such as --set optimizer.lr=1e-4.")
    removing = not text.strip()
    table = values
    for part in parts[:-1]:
        table = table.get(part, {}) if removing else table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: `{part}` is a value, not a table.")
    if removing:
        table.pop(parts[-1], None)
    else:
        table[parts[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    """The TOML value of a command-line text; what is not TOML is taken as a string, so that quotes may be left out."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
