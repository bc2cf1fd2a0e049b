"""Every key of every recipe, from the pydantic models that validate them."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import getdoc
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from smtool.config import Config
from smtool.recipe import TrainAE, TrainDiT
from smtool.recipe.race import Race

RECIPES: dict[str, type[Config]] = {"train-ae": TrainAE, "train-dit": TrainDiT, "race": Race}
INTRODUCTION = """\
<!-- Written by `make docs` from the models in smtool/recipe; edits here are lost. -->

# Recipe keys

A recipe is a TOML file. These tables list every key that `smtool train-ae`, `smtool train-dit` and `smtool race` accept, with its
type, its default and what it does. An unknown key, a wrong type or a value out of range is an error that names the key.

- `smtool recipes list` shows the recipes that come with smtool, `smtool recipes copy NAME FILE` copies one.
- `--set KEY=VALUE` changes a key on the command line: `--set optimizer.lr=1e-4 --set 'model.channels=[16, 32, 32]'`.
  `--set KEY=` removes a key or a table.
- A table marked *optional* is off unless the recipe has it, such as `[ema]`, `[discriminator]` and `[regularizers.dsm]`. A table
  without keys turns it on with its defaults.
- `kind` chooses between several tables of the same name.
- `[regularizers."module:Class"]` turns on a regularizer of your own code: [add a method](../how-to/add-a-method.md).

"""


@dataclass(frozen=True)
class Table:
    """One TOML table: its name, the model of its keys, and whether a recipe may leave it out."""

    name: str
    model: type[Config]
    optional: bool = False


def recipes_page() -> str:
    """The whole page, Markdown."""
    parts = [INTRODUCTION]
    for command, model in RECIPES.items():
        parts.append(f"## {command}\n\n{_summary(model)}\n\n")
        parts += [_section(command, table) for table in tables(model)]
    return "".join(parts).rstrip() + "\n"


def tables(model: type[Config], name: str = "", *, optional: bool = False) -> Iterator[Table]:
    """A model and all models below it, as TOML tables in the order of their fields."""
    yield Table(name, model, optional)
    for key, field in model.model_fields.items():
        members, absent = members_of(field.annotation)
        for member in members:
            path = f"{name}.{key}" if name else key
            yield from tables(member, f"{path}.NAME" if _is_mapping(field.annotation) else path, optional=absent)


def members_of(annotation: Any) -> tuple[list[type[Config]], bool]:
    """The models that a field's type holds, and whether None is allowed too."""
    if get_origin(annotation) is Annotated:
        return members_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        found = [members_of(member) for member in get_args(annotation)]
        return [model for models, _ in found for model in models], type(None) in get_args(annotation)
    if _is_mapping(annotation):
        return members_of(get_args(annotation)[1])
    return ([annotation] if isinstance(annotation, type) and issubclass(annotation, Config) else []), False


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _section(command: str, table: Table) -> str:
    """Heading, summary and keys of one table; a table that holds only tables has no keys of its own."""
    keys = [(key, field) for key, field in table.model.model_fields.items() if not members_of(field.annotation)[0]]
    kind = next((field.default for key, field in keys if key == "kind"), None)
    if not keys:
        return ""
    title = f"[{table.name}]" if table.name else "Top level"
    text = f"### {command}: {title}" + (f" kind = \"{kind}\"" if kind else "") + "\n\n"
    if table.name:
        text += ("*Optional.* " if table.optional else "") + _summary(table.model) + "\n\n"
    text += "| key | type | default | meaning |\n|---|---|---|---|\n"
    return text + "".join(_row(key, field) for key, field in keys) + "\n"


def _row(key: str, field: FieldInfo) -> str:
    cells = (f"`{key}`", _type(field), _default(field), field.description or ("chooses this table" if key == "kind" else ""))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def _summary(model: type[Config]) -> str:
    """The first paragraph of the model's docstring."""
    return " ".join((getdoc(model) or "").split("\n\n")[0].split())


def _type(field: FieldInfo) -> str:
    bounds = [f"{sign} {getattr(mark, name):g}" for mark in field.metadata
              for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")) if getattr(mark, name, None) is not None]
    return ", ".join([_name(field.annotation), *bounds])


def _name(annotation: Any) -> str:
    """A type in words: integer, number, string, true / false, list of ..., or the values there are."""
    words = {int: "integer", float: "number", str: "string", bool: "true / false", type(None): "absent"}
    if annotation in words:
        return words[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _name(arguments[0])
    if origin is Literal:
        return " / ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_name(one) for one in arguments if one is not type(None))
    if origin is tuple:
        return f"list of {_name(arguments[0])}" if arguments[1:] == (...,) else f"list of {len(arguments)} {_name(arguments[0])}"
    if origin in (list, dict):
        return f"{'list' if origin is list else 'table'} of {_name(arguments[-1])}"
    return str(getattr(annotation, "__name__", annotation))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        return f"`{list(value)}`".replace("'", '"')
    return f"`{value}`"
