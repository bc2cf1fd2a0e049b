"""Recipes: TOML = pydantic = attribute, one name in three places."""

from smtool.recipe.files import Recipe, find, load, packaged, run_name
from smtool.recipe.train_ae import TrainAE

__all__ = ["Recipe", "TrainAE", "find", "load", "packaged", "run_name"]
