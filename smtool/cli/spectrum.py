"""`smtool spectrum`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import Device, JsonFile, Tile, WeightsDir, computing_device, seconds
from smtool.errors import RecipeError

_WHAT = (
    "Autoencoders: checkpoints, runs, diffusers folders, timm:NAME, squeezenet, module:attribute of your code, pixels, "
    "control:NAME; or `images` alone."
)


@app.command()
def spectrum(
    what: Annotated[list[str], typer.Argument(metavar="WHAT...", help=_WHAT)],
    plot: Annotated[bool, typer.Option("--plot", help="Write report.html, figures (PNG, SVG) and spectrum.json.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Images: folder, tar, shards or builtin:NAME. Default: builtin:photos.")
    ] = None,
    num_images: Annotated[
        int | None, typer.Option(min=2, help="Number of images. Default: 240, of which 16 or 32 are decoded.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time limit (90s, 2m). Default: 5m on a CPU. Measuring ends earlier once every delta is known to ± 0.1.",
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Measure everything without a time limit, as on a GPU.")
    ] = False,
    estimator: Annotated[
        Literal["physical", "reference", "both"],
        typer.Option(help="Power estimator: physical (rings of equal frequency), reference (the released code's), or both."),
    ] = "both",
    delta: Annotated[
        float | None, typer.Option(help="Delta of the target spectrum. Default: the one in the run's recipe, else 1.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The one of WHAT whose noise schedule the time shifts match. Default: the first.")
    ] = None,
    snr_threshold: Annotated[
        float, typer.Option(help="Signal-to-noise ratio above which a frequency counts as visible in noise.")
    ] = 1.0,
    published: Annotated[
        list[str], typer.Option(help="Published curve to draw as well, such as celeba/dsm. May be repeated.")
    ] = (),  # type: ignore[assignment]
    out: Annotated[Path | None, typer.Option(help="Folder for page and figures. Default: next to the first checkpoint.")] = None,
    downsample_pad: Annotated[
        Literal["asymmetric", "symmetric"] | None, typer.Option(help="Padding of the encoder. Default: read from the file.")
    ] = None,
    tile: Tile = None,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
    json_path: JsonFile = None,
) -> None:
    """Report how suitable latents are for diffusion: power spectra, delta, band transfer, low-pass curve, noise crossing, health.

    Examples:

    smtool spectrum runs/dsm --plot

    smtool spectrum runs/sd-vae runs/dsm --data FOLDER --plot --out spectra
    """
    from smtool.diffusability.plan import limit_of
    from smtool.diffusability.spectrum import spectrum
    from smtool.report.console import Console

    if full and budget is not None:
        raise RecipeError("--full has no time limit, but --budget sets one.", hint="Give one of the two.")
    chosen = computing_device(device, float64=True)
    spectrum(
        what,
        plot=plot,
        data=data,
        num_images=num_images,
        limit=None if full else limit_of(None if budget is None else seconds(budget), chosen),
        estimator=estimator,
        delta=delta,
        reference=reference,
        snr_threshold=snr_threshold,
        published=list(published),
        out=out,
        json_path=json_path,
        downsample_pad=downsample_pad,
        weights_dir=weights_dir,
        device=chosen,
        tile=tile,
        console=Console(),
    )
