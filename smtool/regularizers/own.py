"""Regularizers of the user's own code: `[regularizers."module:Class"]` names a subclass of `RegularizerConfig`."""

from smtool.errors import RecipeError
from smtool.own_code import importing
from smtool.regularizers.base import RegularizerConfig


def own_class(key: str) -> type[RegularizerConfig]:
    """Import the class of `module:Class`; modules of the current folder are found.

    Raises RecipeError if the module cannot be imported, or the attribute is not a subclass of RegularizerConfig.
    """
    with importing(key) as found:
        pass
    if not (isinstance(found, type) and issubclass(found, RegularizerConfig)):
        raise RecipeError(
            f'regularizers."{key}" is not a recipe table of a regularizer.',
            hint="It must be a subclass of smtool.regularizers.RegularizerConfig with a method build, as in README.md.",
        )
    return found
