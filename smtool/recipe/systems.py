"""Published autoencoders and transformers that smtool has a recipe for: what the heads of recipes/paper/related say of them."""

import re
from dataclasses import dataclass, fields

from smtool.errors import RecipeError
from smtool.recipe.catalog import find, names, read_text

_FOLDER = "paper/related/"
_LINE = re.compile(r"# (System|Regularizes|View|Score|In small): (.*)")
_MORE = re.compile(r"#   (\S.*)")


@dataclass(frozen=True)
class System:
    """A published system. view: what its method does in terms of ESM and DSM; score: as published, with its protocol; in_small:
    what smtool measured with it at a small size."""

    recipe: str
    system: str
    regularizes: str
    view: str
    score: str
    in_small: str


def systems() -> list[System]:
    """All systems, in the order of their recipes. Raises RecipeError for a head that lacks a line."""
    return [_system(name) for name in names() if name.startswith(_FOLDER)]


def _system(name: str) -> System:
    found: dict[str, str] = {}
    key = ""
    for line in read_text(find(name)).splitlines():
        if stated := _LINE.fullmatch(line):
            key = stated[1].lower().replace(" ", "_")
            found[key] = stated[2]
        elif key and (more := _MORE.fullmatch(line)):
            found[key] += f" {more[1]}"
        else:
            key = ""
    missing = [field.name for field in fields(System)[1:] if field.name not in found]
    if missing:
        raise RecipeError(f"{name}: its head lacks a line `# {missing[0].replace('_', ' ').capitalize()}: ...`.")
    return System(name, **found)
