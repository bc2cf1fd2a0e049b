"""Recipes: TOML = pydantic = attribute, one name in three places."""

import tomllib

from smtool.recipe.files import Recipe, command, find, load, packaged, run_name
from smtool.recipe.train_ae import Data, TrainAE
from smtool.recipe.train_dit import TrainDiT
from smtool.recipe.training import TrainingTables

__all__ = ["Data", "Recipe", "TrainAE", "TrainDiT", "TrainingTables", "find", "kind_of", "load", "packaged", "run_name"]


def kind_of(recipe: str) -> type[TrainAE] | type[TrainDiT]:
    """The tables that a recipe is made of. What is no TOML at all is left to `load`, which says so."""
    try:
        return TrainDiT if command(find(recipe)) == "train-dit" else TrainAE
    except tomllib.TOMLDecodeError:
        return TrainAE
