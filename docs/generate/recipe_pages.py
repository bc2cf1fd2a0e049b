"""Every key of every recipe, from the pydantic models that validate them."""

import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import getdoc
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cells import row
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from recipe_examples import example

from smtool.config import Config
from smtool.image_shape import ImageSize
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
- The examples come from the recipe that is named beside them.
- `[regularizers."module:Class"]` turns on a regularizer of your own code: [add a method](../how-to/add-a-method.md).

"""


@dataclass(frozen=True)
class Table:
    """One TOML table: its name, the model of its keys, whether a recipe may leave it out, and its description as a key."""

    name: str
    model: type[Config]
    optional: bool = False
    description: str = ""

    @property
    def kind(self) -> str:
        """The value of `kind` that chooses this table; empty where `kind` is an ordinary key with several values, or no key."""
        field = self.model.model_fields.get("kind")
        return str(field.default) if field is not None and len(get_args(field.annotation)) == 1 else ""

    @property
    def title(self) -> str:
        """Heading of the table, without the command."""
        return (f"`[{self.name}]`" if self.name else "top level") + (f', `kind = "{self.kind}"`' if self.kind else "")


def anchor(command: str, table: Table) -> str:
    """The anchor that Python-Markdown gives the heading of a table."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", f"{command}: {table.title}").strip().lower())


def recipes_page() -> str:
    """The whole page, Markdown."""
    parts = [INTRODUCTION]
    for command, model in RECIPES.items():
        parts.append(f"## {command}\n\n{_summary(model)}\n\n")
        parts += [_section(command, table) for table in tables(model)]
    return "".join(parts).rstrip() + "\n"


def tables(model: type[Config], name: str = "", *, optional: bool = False, description: str = "") -> Iterator[Table]:
    """A model and all models below it, as TOML tables in the order of their fields."""
    yield Table(name, model, optional, description)
    for field, inner in _inner(model, name):
        yield from tables(inner.model, inner.name, optional=inner.optional, description=field.description or "")


def _inner(model: type[Config], name: str) -> Iterator[tuple[FieldInfo, Table]]:
    """(field, table) for every table directly below a model; a union gives one for each member."""
    for key, field in model.model_fields.items():
        members, absent = members_of(field.annotation)
        path = f"{name}.{key}" if name else key
        for member in members:
            yield field, Table(f"{path}.NAME" if _is_mapping(field.annotation) else path, member, absent)


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
    """Heading, summary, keys and an example of one table."""
    text = f"### {command}: {table.title}\n\n"
    if table.name:
        sentences = [_summary(table.model), "" if table.name.endswith(".NAME") else _sentence(table.description)]
        text += " ".join(["*Optional.*"] * table.optional + [sentence for sentence in sentences if sentence]) + "\n\n"
    text += "| key | type | default | meaning |\n|---|---|---|---|\n"
    for key, field in table.model.model_fields.items():
        inner = [one for other, one in _inner(table.model, table.name) if other is field]
        text += _table_row(command, key, field, inner) if inner else _row(key, field)
    return text + "\n" + _example(command, table)


def _example(command: str, table: Table) -> str:
    """A block of TOML with the recipe that it was taken from."""
    found = example(command, table)
    if found is None:
        return ""
    recipe, toml = found
    title = f' title="recipes/{recipe}.toml"' if recipe else ""
    return f"```toml{title}\n{toml}```\n\n"


def _row(key: str, field: FieldInfo) -> str:
    return row(f"`{key}`", _type(field), _default(field), field.description or ("chooses this table" if key == "kind" else ""))


def _table_row(command: str, key: str, field: FieldInfo, inner: list[Table]) -> str:
    """The row of a key that holds a table, or one of several."""
    links = " / ".join(f"[{one.kind or 'table'}](#{anchor(command, one)})" for one in inner)
    default = "required" if field.is_required() else "absent" if field.default is None else "its defaults"
    if inner[0].name.endswith(".NAME"):
        links = f"{links} for each NAME"
    meaning = _summary(inner[0].model) if len(inner) == 1 else "one of these tables"
    return row(f"`{key}`", links, default, field.description or meaning)


def _sentence(text: str) -> str:
    """A description as a sentence of its own."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def _summary(model: type[Config]) -> str:
    """The first paragraph of the model's docstring."""
    return " ".join((getdoc(model) or "").split("\n\n")[0].split())


def _type(field: FieldInfo) -> str:
    return ", ".join([_name(field.annotation), *_bounds(field.metadata)])


def _bounds(metadata: Any) -> list[str]:
    """The range that a number, or the length of a list, must keep to."""
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"), ("min_length", "length ≥"), ("max_length", "length ≤"))
    found = ((sign, getattr(mark, name, None)) for mark in metadata for name, sign in signs)
    return [f"{sign} {bound:g}" for sign, bound in found if bound is not None]


def _name(annotation: Any, *, plural: bool = False) -> str:
    """A type in words: integer, number, string, true / false, list of ..., or the values there are."""
    words = {int: "integer", float: "number", str: "string", bool: "true / false", type(None): "absent"}
    words[ImageSize] = "integer or list of 2 integers"
    if annotation in words:
        return words[annotation] + ("s" if plural and annotation in (int, float, str) else "")
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = _bounds(one for mark in arguments[1:] for one in (mark.metadata if isinstance(mark, FieldInfo) else (mark,)))
        name = _name(arguments[0], plural=plural)
        return f"{name} ({'each ' * plural}{', '.join(bounds)})" if bounds else name
    if origin is Literal:
        return " / ".join(f'`"{value}"`' if isinstance(value, str) else f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_name(one, plural=plural) for one in arguments if one is not type(None))
    if origin is tuple:
        count = "" if arguments[1:] == (...,) else f"{len(arguments)} "
        return f"list of {count}{_name(arguments[0], plural=True)}"
    if origin in (list, dict):
        return f"{'list' if origin is list else 'table'} of {_name(arguments[-1], plural=True)}"
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
