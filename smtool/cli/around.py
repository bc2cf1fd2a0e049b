"""What serves the verbs: `smtool quickstart`, `inspect`, `recipes`."""

from pathlib import Path
from typing import Annotated

import typer

from smtool.cli.app import app
from smtool.cli.options import RecipeArgument

recipes_app = typer.Typer(help="List, show and copy the recipes that come with smtool.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the runs and the report.")] = Path("runs/quickstart"),
) -> None:
    """The whole pipeline, small and real, in minutes on a CPU: data, autoencoders, spectra, transformers, scores, a page."""
    from smtool.commands.quickstart.study import quickstart
    from smtool.report.console import Console

    quickstart(out, console=Console())


@app.command()
def inspect(what: Annotated[str, typer.Argument(help="A recipe, checkpoint, tokenizer or folder of prepared data.")]) -> None:
    """Describe a recipe, a checkpoint or a data folder: parameters, shapes, digests."""
    from smtool.commands.inspect.inspection import inspect
    from smtool.report.console import Console

    inspect(what, console=Console())


@recipes_app.command("list")
def recipes_list() -> None:
    """Names of all recipes, each with its first line."""
    from smtool.recipe.catalog import names, opening

    for name in names():
        typer.echo(f"{name:44} {opening(name)}")


@recipes_app.command("show")
def recipes_show(recipe: RecipeArgument) -> None:
    """Print a recipe."""
    from smtool.recipe.catalog import find

    typer.echo(find(recipe).read_text(encoding="utf-8"), nl=False)


@recipes_app.command("copy")
def recipes_copy(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Argument(help="File to write; an existing one is left alone.")],
) -> None:
    """Copy a recipe, to change it."""
    from smtool.recipe.catalog import command, copy

    copy(recipe, to)
    typer.echo(f"{to}\n  train with: smtool {command(to)} {to}")
