"""`specimen:plain` and `specimen:dsm`: two small trained autoencoders that come with smtool (recipes/specimen)."""

from pathlib import Path

from smtool.errors import RecipeError

PREFIX = "specimen:"


def names() -> list[str]:
    """Names of all specimens, without the prefix."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def find(name: str) -> Path:
    """The file of `specimen:NAME`; RecipeError lists the names there are."""
    path = _folder() / f"{name.removeprefix(PREFIX)}.safetensors"
    if path.is_file():
        return path
    raise RecipeError(f"{name}: no such specimen.", hint=f"There are: {', '.join(PREFIX + one for one in names())}.")


def _folder() -> Path:
    """Inside the wheel, or in data/ of a source tree."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_specimens"
    return inside if inside.is_dir() else package.parent / "data" / "specimen" / "autoencoders"
