"""`smtool quickstart`."""

from pathlib import Path
from typing import Annotated

import typer

from smtool.cli.app import app


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the runs and the report.")] = Path("runs/quickstart"),
) -> None:
    """The whole pipeline, small and real, in minutes on a CPU: data, autoencoders, spectra, transformers, scores, a page."""
    from smtool.commands.quickstart.study import quickstart
    from smtool.report.console import Console

    quickstart(out, console=Console())
