"""Recipes: TOML = pydantic = attribute, one name in three places."""

import tomllib

from smtool.errors import RecipeError
from smtool.recipe.files import Recipe, command, find, load, packaged, run_name
from smtool.recipe.train_ae import Data, TrainAE
from smtool.recipe.train_dit import TrainDiT
from smtool.recipe.training import TrainingTables

__all__ = ["Data", "Recipe", "TrainAE", "TrainDiT", "TrainingTables", "find", "kind_of", "load", "packaged", "run_name"]


def kind_of(recipe: str) -> type[TrainAE] | type[TrainDiT]:
    """The tables that a recipe of a training is made of. What is no TOML at all is left to `load`, which says so."""
    try:
        kind = command(find(recipe))
    except tomllib.TOMLDecodeError:
        return TrainAE
    if kind == "race":
        raise RecipeError(f"{recipe} is a recipe of race.", hint=f"Use: smtool race {recipe}")
    return TrainDiT if kind == "train-dit" else TrainAE
