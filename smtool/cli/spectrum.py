"""`smtool spectrum`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import Device, JsonFile, computing_device, seconds


@app.command()
def spectrum(
    what: Annotated[list[str], typer.Argument(metavar="WHAT...", help="Checkpoints, run or diffusers folders, or `images`.")],
    plot: Annotated[bool, typer.Option("--plot", help="Draw PNG and SVG.")] = False,
    data: Annotated[str | None, typer.Option(help="Folder, tar, shards or builtin:NAME; default builtin:photos.")] = None,
    num_images: Annotated[int | None, typer.Option(min=2, help="Default 240 for spectra, 32 for the low-pass curve.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="End when delta is known to 0.1, or after 90s, 2m.")] = None,
    estimator: Annotated[Literal["physical", "reference", "both"], typer.Option(help="How power is gathered.")] = "both",
    delta: Annotated[float | None, typer.Option(help="Draw and judge against this delta; default: the run's, else 1.")] = None,
    published: Annotated[list[str], typer.Option(help="Overlay a published curve; may be repeated.")] = (),  # type: ignore[assignment]
    out: Annotated[Path | None, typer.Option(help="Folder for plots and JSON; default beside the first checkpoint.")] = None,
    device: Device = "auto",
    json_path: JsonFile = None,
) -> None:
    """Compare the power spectrum of latents with that of images: slope, delta, divergence, low-pass curve."""
    from smtool.pipelines.spectrum.spectra import spectrum
    from smtool.report.console import Console

    spectrum(
        what,
        plot=plot,
        data=data,
        num_images=num_images,
        budget=None if budget is None else seconds(budget),
        estimator=estimator,
        delta=delta,
        published=list(published),
        out=out,
        json_path=json_path,
        device=computing_device(device),
        console=Console(),
    )
