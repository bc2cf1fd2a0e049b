"""Recipes: TOML = pydantic = attribute, one name in three places."""

from smtool.recipe.files import Recipe, find, load, packaged, run_name
from smtool.recipe.train_ae import Data, TrainAE
from smtool.recipe.train_dit import TrainDiT
from smtool.recipe.training import TrainingTables

__all__ = ["Data", "Recipe", "TrainAE", "TrainDiT", "TrainingTables", "find", "load", "packaged", "run_name"]
