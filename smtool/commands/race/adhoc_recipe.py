"""A race recipe for autoencoders named on the command line; all other keys have their defaults."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from smtool.recipe import Recipe
from smtool.recipe.race import Entry, Race, load_race
from smtool.storage import write_text

OUT = Path("runs/race")


def adhoc_race(autoencoders: Sequence[str], folder: Path, overrides: Sequence[str] = ()) -> tuple[Recipe[Race], list[Entry]]:
    """Write folder/recipe.toml with a racer for each autoencoder, and load it."""
    lines = ["# Written by `smtool race`. It can be edited and run with `smtool race FILE`.", ""]
    for name, autoencoder in zip(_names(autoencoders), autoencoders, strict=True):
        lines += [f"[racers.{json.dumps(name)}]", f"checkpoint = {json.dumps(autoencoder)}", ""]
    path = folder / "recipe.toml"
    write_text(path, "\n".join(lines))
    return load_race(str(path), overrides)


def _names(autoencoders: Sequence[str]) -> list[str]:
    """Names of the racers: of the run for a ckpt.safetensors, else of the file or folder. Equal names are numbered."""
    paths = [Path(autoencoder) for autoencoder in autoencoders]
    stems = [(path.parent if path.name == "ckpt.safetensors" else path).stem for path in paths]
    plain = [re.sub(r"[^A-Za-z0-9_.+=-]", "-", stem).lstrip("_.+=-") or "autoencoder" for stem in stems]
    counts = Counter(plain)
    return [name if counts[name] == 1 else f"{name}-{1 + plain[:index].count(name)}" for index, name in enumerate(plain)]
