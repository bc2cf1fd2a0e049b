"""Regularizers of the user's own code: `[regularizers."module:Class"]` names a subclass of `RegularizerConfig`."""

import importlib
import re

from smtool.errors import RecipeError
from smtool.regularizers.base import RegularizerConfig
from smtool.tokenizers.objects import importing_from_here


def is_own(key: str) -> bool:
    """Whether a key has the form `module:Class`."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", key) is not None


def own_class(key: str) -> type[RegularizerConfig]:
    """Import the class of `module:Class`; modules of the current folder are found.

    Raises RecipeError if the module cannot be imported, or the attribute is not a subclass of RegularizerConfig.
    """
    module_name, attribute = key.split(":")
    with importing_from_here():
        try:
            found = getattr(importlib.import_module(module_name), attribute)
        except Exception as error:      # whatever the module raises
            raise RecipeError(
                f'regularizers."{key}" could not be imported: {type(error).__name__}: {error}.',
                hint="It must name a module that Python finds, here or installed, and a class in it.",
            ) from error
    if not (isinstance(found, type) and issubclass(found, RegularizerConfig)):
        raise RecipeError(
            f'regularizers."{key}" is not a recipe table of a regularizer.',
            hint="It must be a subclass of smtool.regularizers.RegularizerConfig with a method build, as in README.md.",
        )
    return found
