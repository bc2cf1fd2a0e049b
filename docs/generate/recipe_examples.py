"""An example of each table: from a recipe that comes with smtool, or written here."""

import tomllib
from functools import cache
from typing import TYPE_CHECKING, Any

import tomli_w
from pydantic import ValidationError

from smtool.recipe.catalog import command as command_of
from smtool.recipe.catalog import names, packaged

if TYPE_CHECKING:
    from recipe_pages import Table

FIRST = ("dsm", "sit", "race/faces")
"""Recipes whose tables are shown before those of others."""
WRITTEN: dict[tuple[str, str], dict[str, Any]] = {
    ("train-ae", "tracking"): {"tensorboard": True, "wandb": "my-project"},
    ("train-ae", "reconstruction"): {"loss": "l2"},
    ("train-ae", "discriminator.optimizer"): {"lr": 1e-4, "warmup": 0},
    ("train-ae", "validation"): {"num_images": 256, "grid": 16},
    ("train-dit", "tracking"): {"tensorboard": True, "wandb": "my-project"},
    ("train-dit", "warmup"): {"kind": "gaussian", "cutoff": 0.2, "steps": 1000},
    ("train-dit", "parallel"): {"shard_above": 300_000_000, "gather": "fp32"},
}
"""(command, table) -> keys, for tables that no recipe has."""


def example(command: str, table: "Table") -> tuple[str, str] | None:
    """(name of the recipe, TOML) of one table without its inner tables; the name is empty where it was written for this page."""
    for recipe, values in _recipes(command):
        for name, found in _found(values, table.name):
            if _fits(table, found):
                return recipe, _toml(name, found)
    written = WRITTEN.get((command, table.name))
    return None if written is None else ("", _toml(table.name, written))


def _fits(table: "Table", found: dict[str, Any]) -> bool:
    """Whether the table holds keys of its own, and is of this kind."""
    if not any(not isinstance(value, dict) for value in found.values()):
        return False
    try:
        table.model.model_validate(found)
    except ValidationError:
        return False
    return True


@cache
def _recipes(command: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, values) of a command's recipes: the plain ones first, those in folders after them."""
    order = sorted(names(), key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name.count("/"), name))
    paths = ((name, packaged() / f"{name}.toml") for name in order)
    return [(name, tomllib.loads(path.read_text(encoding="utf-8"))) for name, path in paths if command_of(path) == command]


def _found(values: dict[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    """(name in the recipe, values) of the tables that `name` stands for: none, one, or with NAME every one there is."""
    found = [("", values)]
    for part in filter(None, name.split(".")):
        found = [
            (f"{path}.{key}" if path else key, inner)
            for path, outer in found
            for key, inner in outer.items()
            if part in ("NAME", key) and isinstance(inner, dict)
        ]
    return found


def _toml(name: str, values: dict[str, Any]) -> str:
    keys = {key: value for key, value in values.items() if not isinstance(value, dict)}
    lines = "".join(f"{key} = {_value(value)}\n" for key, value in keys.items())
    return f"[{name}]\n{lines}" if name else lines


def _value(value: Any) -> str:
    """A TOML value; a list on one line if it is short."""
    line = f"[{', '.join(_value(one) for one in value)}]" if isinstance(value, list) else ""
    return line if 0 < len(line) <= 60 else tomli_w.dumps({"key": value}).removeprefix("key = ").rstrip("\n")
