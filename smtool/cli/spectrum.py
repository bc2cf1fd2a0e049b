"""`smtool spectrum`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import Device, JsonFile, WeightsDir, computing_device, seconds

_WHAT = "Checkpoints, run or diffusers folders, pixels, timm:NAME, squeezenet, module:attribute, control:NAME, or `images`."


@app.command()
def spectrum(
    what: Annotated[list[str], typer.Argument(metavar="WHAT...", help=_WHAT)],
    plot: Annotated[bool, typer.Option("--plot", help="Draw PNG and SVG, and write report.html.")] = False,
    data: Annotated[str | None, typer.Option(help="Folder, tar, shards or builtin:NAME; default builtin:photos.")] = None,
    num_images: Annotated[int | None, typer.Option(min=2, help="Default 240; 32 or 16 of them are decoded.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 90s, 2m: end then, or with delta to 0.1.")] = None,
    estimator: Annotated[Literal["physical", "reference", "both"], typer.Option(help="How power is gathered.")] = "both",
    delta: Annotated[float | None, typer.Option(help="Draw and judge against this delta; default: the run's, else 1.")] = None,
    reference: Annotated[str | None, typer.Option(help="Time shifts match this one of WHAT; default: the first.")] = None,
    published: Annotated[list[str], typer.Option(help="Overlay a published curve; may be repeated.")] = (),  # type: ignore[assignment]
    out: Annotated[Path | None, typer.Option(help="Folder for plots and JSON; default beside the first checkpoint.")] = None,
    downsample_pad: Annotated[
        Literal["asymmetric", "symmetric"] | None, typer.Option(help="Padding of the encoder; default: what the file means.")
    ] = None,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
    json_path: JsonFile = None,
) -> None:
    """Report whether latents are diffusable: spectra, delta, band transfer, low-pass curve, noise crossing, health."""
    from smtool.diffusability.spectrum import spectrum
    from smtool.report.console import Console

    spectrum(
        what,
        plot=plot,
        data=data,
        num_images=num_images,
        budget=None if budget is None else seconds(budget),
        estimator=estimator,
        delta=delta,
        reference=reference,
        published=list(published),
        out=out,
        json_path=json_path,
        downsample_pad=downsample_pad,
        weights_dir=weights_dir,
        device=computing_device(device),
        console=Console(),
    )
