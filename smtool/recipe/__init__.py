"""Recipes: TOML files that are validated by pydantic models with the same names of tables and keys."""

import tomllib
from importlib import import_module
from typing import TYPE_CHECKING, Any

from smtool.errors import RecipeError
from smtool.recipe.catalog import command, find, packaged, run_name

if TYPE_CHECKING:
    from smtool.recipe.files import Recipe, load
    from smtool.recipe.images import Data
    from smtool.recipe.train_ae import TrainAE
    from smtool.recipe.train_dit import TrainDiT
    from smtool.recipe.training import TrainingTables

__all__ = ["Data", "Recipe", "TrainAE", "TrainDiT", "TrainingTables", "find", "kind_of", "load", "packaged", "run_name"]
_HOMES = {
    "Recipe": "files",
    "load": "files",
    "Data": "images",
    "TrainAE": "train_ae",
    "TrainDiT": "train_dit",
    "TrainingTables": "training",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the tables import torch, which listing recipes does not need."""
    if name in _HOMES:
        return getattr(import_module(f"smtool.recipe.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'smtool.recipe' has no attribute {name!r}")


def kind_of(recipe: str) -> "type[TrainAE] | type[TrainDiT]":
    """The model of a training recipe. Raises RecipeError for a race recipe; for invalid TOML, `load` raises the error."""
    from smtool.recipe.train_ae import TrainAE
    from smtool.recipe.train_dit import TrainDiT

    try:
        kind = command(find(recipe))
    except tomllib.TOMLDecodeError:
        return TrainAE
    if kind == "race":
        raise RecipeError(f"{recipe} is a recipe of race.", hint=f"Use: smtool race {recipe}")
    return TrainDiT if kind == "train-dit" else TrainAE
