"""Code of the user's own, named `module:attribute`: tokenizers on the command line, regularizers in a recipe."""

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smtool.errors import RecipeError


def names_own_code(text: str) -> bool:
    """Whether a text has the form `module:attribute`."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text) is not None


@contextmanager
def importing(name: str) -> Iterator[Any]:
    """Import `module:attribute` and yield the attribute; modules of the current folder are found.

    Any exception of the module or of the block is raised as a RecipeError that begins with `name`.
    """
    module, attribute = name.split(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield getattr(importlib.import_module(module), attribute)
    except Exception as error:      # any exception of the user's code
        raise RecipeError(
            f"{name} could not be imported: {type(error).__name__}: {error}.",
            hint="It must name a module that Python finds, here or installed, and an attribute of it.",
        ) from error
    finally:
        sys.path.remove(here)
