"""Find, list and copy recipes: those packaged with smtool, and files. Does not import torch."""

import tomllib
from pathlib import Path
from typing import Literal

from smtool.errors import RecipeError
from smtool.recipe.problems import closest
from smtool.storage import shortened

_LONGEST_NAME = 4000      # systems refuse to look for longer ones


def packaged() -> Path:
    """The folder of the packaged recipes: inside the package in a wheel, beside it in a source tree."""
    here = Path(__file__).resolve().parent.parent
    inside = here / "_recipes"
    return inside if inside.is_dir() else here.parent / "recipes"


def names() -> list[str]:
    """Names of all packaged recipes: their paths relative to the recipes folder, without .toml."""
    folder = packaged()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml"))


def find(recipe: str) -> Path:
    """The file of a recipe: a path, or a packaged recipe's name with or without `recipes/` and `.toml`. Raises RecipeError."""
    path = Path(recipe)
    if len(recipe) <= _LONGEST_NAME and path.is_file():
        return path
    name = recipe.removeprefix("recipes/").removesuffix(".toml")
    inside = packaged() / f"{name}.toml"
    if len(recipe) <= _LONGEST_NAME and inside.is_file():
        return inside
    guess = closest(name, names())
    raise RecipeError(
        f"{shortened(recipe)}: no such recipe, neither a file nor one packaged with smtool.",
        hint=f"Did you mean `{guess}`?" if guess else "`smtool recipes list` shows all packaged recipes.",
    )


def opening(name: str) -> str:
    """One line about a packaged recipe: the first comment line after its command."""
    lines = (packaged() / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    return next((line for line in comments if not line.startswith("smtool ")), "")


def command(path: Path) -> Literal["train-ae", "train-dit", "race"]:
    """The command of a recipe: race if it has a table `racers`, train-dit if it has a table `latents`, otherwise train-ae."""
    tables = tomllib.loads(read_text(path))
    if "racers" in tables:
        return "race"
    return "train-dit" if "latents" in tables else "train-ae"


def autoencoder_recipe(run: str) -> tuple[str, bool] | None:
    """The packaged train-ae recipe that has `run` as its run folder, and whether `run` is its default folder (without --out).

    None if no recipe has it.
    """
    for name in names():
        path = packaged() / f"{name}.toml"
        own = run == f"runs/{run_name(path)}"
        if (own or run == f"runs/{name}") and command(path) == "train-ae":
            return name, own
    return None


def copy(recipe: str, to: Path) -> None:
    """Write a recipe's text to a new file. Raises RecipeError if the file exists."""
    if to.exists():
        raise RecipeError(f"{to} exists already; it was not changed.", hint="Choose another name, or remove it first.")
    from smtool import storage  # imports torch, which listing recipes does not need

    storage.write_text(to, read_text(find(recipe)))


def run_name(path: Path) -> str:
    """The name of a recipe's run: its path relative to the nearest parent folder `recipes`, with "-" for "/"."""
    parts = path.resolve().with_suffix("").parts
    for folder in ("recipes", "_recipes"):
        if folder in parts[:-1]:
            last = len(parts) - 1 - parts[::-1].index(folder)
            return "-".join(parts[last + 1 :])
    return parts[-1]


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as text ({error}).") from error
