"""Recipes: TOML = pydantic = attribute, one name in three places."""

import tomllib

from smtool.recipe.files import Recipe, find, load, packaged, run_name
from smtool.recipe.train_ae import Data, TrainAE
from smtool.recipe.train_dit import TrainDiT
from smtool.recipe.training import TrainingTables

__all__ = ["Data", "Recipe", "TrainAE", "TrainDiT", "TrainingTables", "find", "kind_of", "load", "packaged", "run_name"]


def kind_of(recipe: str) -> type[TrainAE] | type[TrainDiT]:
    """What a recipe is for, by its tables: only one of `train-dit` has [latents]. A file that is no TOML is left to `load`."""
    try:
        return TrainDiT if "latents" in tomllib.loads(find(recipe).read_text(encoding="utf-8")) else TrainAE
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return TrainAE
