"""Finding, reading, overriding and writing recipes."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import tomli_w
from pydantic import ValidationError

from smtool import storage
from smtool.config import Section
from smtool.errors import RecipeError
from smtool.recipe.problems import closest, raise_problems, validation_problems

Tables = TypeVar("Tables", bound=Section)


@dataclass(frozen=True)
class Recipe(Generic[Tables]):
    """A validated recipe: its tables, the file's own text, the name of its run, and where it was found."""

    tables: Tables
    text: str
    name: str
    path: Path

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, defaults filled in; tables that are off are absent, since TOML has no None."""
        return self.tables.model_dump(mode="json", exclude_none=True)

    def resolved_toml(self) -> str:
        return tomli_w.dumps(self.resolved())


def packaged() -> Path:
    """The folder of the recipes that come with smtool: inside the wheel, or beside the package in a source tree."""
    here = Path(__file__).resolve().parent.parent
    inside = here / "_recipes"
    return inside if inside.is_dir() else here.parent / "recipes"


def names() -> list[str]:
    """Names of all packaged recipes: their paths under the recipes folder, without .toml."""
    folder = packaged()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml"))


def find(recipe: str) -> Path:
    """The file of a path, or of a packaged recipe's name with or without `recipes/` and `.toml`."""
    path = Path(recipe)
    if path.is_file():
        return path
    name = recipe.removeprefix("recipes/").removesuffix(".toml")
    inside = packaged() / f"{name}.toml"
    if inside.is_file():
        return inside
    guess = closest(name, names())
    raise RecipeError(
        f"{recipe}: no such recipe, neither a file nor one that comes with smtool.",
        hint=f"Did you mean `{guess}`?" if guess else "`smtool recipes list` shows the ones there are.",
    )


def opening(name: str) -> str:
    """What a packaged recipe is for: the first comment line after its command."""
    lines = (packaged() / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    return next((line for line in comments if not line.startswith("smtool ")), "")


def command(path: Path) -> Literal["train-ae", "train-dit", "race"]:
    """The command that a recipe is for: only a race has racers, only a transformer's has latents."""
    tables = tomllib.loads(_read(path))
    if "racers" in tables:
        return "race"
    return "train-dit" if "latents" in tables else "train-ae"


def copy(recipe: str, to: Path) -> None:
    """Write a recipe's text to a new file."""
    if to.exists():
        raise RecipeError(f"{to} exists already and is left as it is.", hint="Choose another name, or remove it first.")
    storage.write_text(to, _read(find(recipe)))


def load(recipe: str, kind: type[Tables], overrides: Sequence[str] = ()) -> Recipe[Tables]:
    """Read a recipe, apply KEY=VALUE overrides, validate. All problems are raised at once as one RecipeError."""
    path = find(recipe)
    text = _read(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}.") from error
    for override in overrides:
        _apply(values, override)
    try:
        tables = kind.model_validate(values)
    except ValidationError as error:
        raise_problems(path, validation_problems(error, kind), cause=error)
    raise_problems(path, [f"{key}: {sentence}" for key, sentence in getattr(tables, "problems", list)()])
    return Recipe(tables, text, run_name(path), path)


def run_name(path: Path) -> str:
    """The name of a recipe's run: its path under the nearest folder `recipes`, with slashes as dashes."""
    parts = path.resolve().with_suffix("").parts
    for folder in ("recipes", "_recipes"):
        if folder in parts[:-1]:
            last = len(parts) - 1 - parts[::-1].index(folder)
            return "-".join(parts[last + 1 :])
    return parts[-1]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as text ({error}).") from error


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one dotted key in the raw tables; `KEY=` without a value removes it."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {override}: expected KEY=VALUE, such as --set optimizer.lr=1e-4.")
    removing = not text.strip()
    table = values
    for part in parts[:-1]:
        table = table.get(part, {}) if removing else table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override}: `{part}` is a value, not a table.")
    if removing:
        table.pop(parts[-1], None)
    else:
        table[parts[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    """The TOML value of a command-line text; what is not TOML is taken as a string, so that quotes may be left out."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
