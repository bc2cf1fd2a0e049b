"""`--data` of `train-ae`: which keys of the recipe it replaces, and the name of the run."""

import tomllib
from pathlib import Path

from smtool.commands.train.run_folder import RunFolder
from smtool.data.images.sources import find_source
from smtool.recipe.catalog import find, read_text
from smtool.report.console import Console


def data_changes(recipe: str, data: str, console: Console) -> list[str]:
    """Changes to the recipe. The recipe's data.validation belongs to its data.train, so both are replaced, which is printed."""
    own = tomllib.loads(read_text(find(recipe))).get("data", {})
    if isinstance(own, dict) and own.get("validation"):
        console.print(f"--data also replaces the recipe's data.validation = {own['validation']!r}: {data} is split.")
        return [f"data.train={data!r}", "data.validation=''"]
    return [f"data.train={data!r}"]


def run_of(name: str, data: str) -> Path:
    """The default run folder: runs/NAME-DATA; runs/NAME if a run with these data stands there, as it did in earlier versions."""
    earlier = RunFolder(Path("runs") / name)
    if earlier.exists:
        before = tomllib.loads((earlier.path / "resolved.toml").read_text(encoding="utf-8"))
        if before.get("data", {}).get("train") == data:
            return earlier.path
    return Path("runs") / f"{name}-{_name_of(data)}"


def _name_of(data: str) -> str:
    if (Path(data) / "dataset.json").is_file():
        return Path(data).resolve().name
    return find_source(data).name
