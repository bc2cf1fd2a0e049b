"""Recipes: TOML = pydantic = attribute, one name in three places."""

from smtool.recipe.files import Recipe, find, load, packaged, run_name
from smtool.recipe.train_ae import Data, TrainAE

__all__ = ["Data", "Recipe", "TrainAE", "find", "load", "packaged", "run_name"]
