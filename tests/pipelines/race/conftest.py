"""A race recipe that is planned and not run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from smtool.pipelines.race.plan import RacePlan, plan_race
from smtool.recipe.race import load_race

RECIPE = """
seeds = [0, 1]
turn = 4
[data]
train = "builtin:photos"
image_size = 32
[autoencoders]
changes = ["steps=10", "model.channels=[8, 8, 8]"]
[transformer]
changes = ["steps=9"]
[judge]
predictors = false
[racers.plain]
recipe = "sd-vae"
[racers.dsm]
recipe = "dsm"
"""


@pytest.fixture
def planned(tmp_path) -> Callable[..., RacePlan]:
    """KEY=VALUE -> the plan of RECIPE."""

    def plan(*changes: str) -> RacePlan:
        path = tmp_path / "race.toml"
        path.write_text(RECIPE)
        loaded, entries = load_race(str(path), changes)
        return plan_race(loaded.tables, entries, Path("race"))

    return plan
