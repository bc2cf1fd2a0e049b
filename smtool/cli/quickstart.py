"""`smtool quickstart`."""

from pathlib import Path
from typing import Annotated

import typer

from smtool.cli.app import app


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the runs and report.html.")] = Path("runs/quickstart"),
) -> None:
    """Run the whole pipeline on a small scale: data, autoencoders, spectra, transformers, scores and a report.

    Takes minutes on a CPU and downloads nothing.

    Examples:

    smtool quickstart

    smtool quickstart --out runs/first-try
    """
    from smtool.commands.quickstart.study import quickstart
    from smtool.report.console import Console

    quickstart(out, console=Console())
