"""`smtool inspect`."""

from typing import Annotated

import typer

from smtool.cli.app import app


@app.command()
def inspect(
    what: Annotated[str, typer.Argument(help="A recipe, run, checkpoint, autoencoder, or folder that `smtool prepare` wrote.")],
) -> None:
    """Describe a recipe, a checkpoint or a data folder: parameters, shapes, digests.

    Examples:

    smtool inspect runs/dsm

    smtool inspect recipes/sit.toml
    """
    from smtool.commands.inspect.inspection import inspect
    from smtool.report.console import Console

    inspect(what, console=Console())
