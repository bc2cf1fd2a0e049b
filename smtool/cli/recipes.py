"""`smtool recipes`."""

from pathlib import Path
from typing import Annotated

import typer

from smtool.cli.app import app
from smtool.cli.options import RecipeArgument

recipes_app = typer.Typer(help="List, show or copy the recipes that come with smtool.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")


@recipes_app.command("list")
def recipes_list() -> None:
    """List the packaged recipes, each with a one-line description.

    Example:

    smtool recipes list
    """
    from smtool.recipe.catalog import names, opening

    for name in names():
        typer.echo(f"{name:44} {opening(name)}")


@recipes_app.command("table")
def recipes_table() -> None:
    """Print the published autoencoders and transformers that smtool has recipes for: what each regularizes, in terms of ESM and
    DSM, its published score with the protocol, and what smtool measured at a small size.

    Example:

    smtool recipes table
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from smtool.recipe.systems import systems

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True)
    for column in ("system", "regularizes", "in terms of ESM and DSM", "published score", "smtool, in small"):
        table.add_column(column, overflow="fold")
    for one in systems():
        table.add_row(f"{one.system}\n{one.recipe.removeprefix('paper/')}", one.regularizes, one.view, one.score, one.in_small)
    Console(highlight=False).print(table)


@recipes_app.command("show")
def recipes_show(recipe: RecipeArgument) -> None:
    """Print a recipe.

    Example:

    smtool recipes show dsm
    """
    from smtool.recipe.catalog import find

    typer.echo(find(recipe).read_text(encoding="utf-8"), nl=False)


@recipes_app.command("copy")
def recipes_copy(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Argument(help="File to write. An existing file is not overwritten.")],
) -> None:
    """Copy a recipe to a file, so that it can be edited.

    Example:

    smtool recipes copy dsm my-dsm.toml
    """
    from smtool.recipe.catalog import command, copy

    copy(recipe, to)
    typer.echo(f"{to}\n  train with: smtool {command(to)} {to}")
