"""`smtool export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import scale_of


@app.command()
def export(
    what: Annotated[
        str,
        typer.Argument(
            metavar="CKPT", help="An autoencoder (any supported format); with --autoencoder, a diffusion transformer."
        ),
    ],
    out: Annotated[Path, typer.Option(help="What to write: a new .safetensors file for smtool, else a new folder.")],
    to: Annotated[
        Literal["diffusers", "smtool", "original"],
        typer.Option(help="Format to write; original: names and number formats of the published file it was fine-tuned from."),
    ] = "diffusers",
    symmetric: Annotated[
        bool,
        typer.Option(
            "--symmetric",
            "--reflect",
            help="Export to diffusers although it pads symmetrically or by reflection; README.md then says how to load it.",
        ),
    ] = False,
    downsample_pad: Annotated[
        Literal["asymmetric", "symmetric"] | None, typer.Option(help="Padding of the encoder. Default: read from the file.")
    ] = None,
    autoencoder: Annotated[
        str | None, typer.Option(help="Autoencoder of the latents, if CKPT is a published transformer.")
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|FILE",
            help="Factor these latents were multiplied by, or file of their mean and std. Default: the autoencoder's.",
        ),
    ] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads of a transformer of unusual size.")] = None,
    snr_scale: Annotated[
        float | None, typer.Option(help="SNR scale of a DCTdiff, or of a U-ViT on pixels. Default: as published.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights of an autoencoder as float16, half the size.")] = False,
    align: Annotated[
        str | None,
        typer.Option(
            metavar="OLD", help="Move latents to the coordinates of this autoencoder, for a transformer trained on its latents."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="For --align: images to fit the map on. Default: builtin:photos.")
    ] = None,
) -> None:
    """Export an autoencoder to diffusers, with a model card, or convert another tool's checkpoint to smtool's format.

    Examples:

    smtool export runs/dsm --out dsm-vae

    smtool export runs/healed --align specimen:plain --to smtool --out aligned.safetensors

    smtool export SiT-XL-2-256x256.pt --to smtool --autoencoder sd-vae-ft-mse --out sit.safetensors
    """
    from smtool.commands.export import export
    from smtool.report.console import Console

    export(
        what,
        to=to,
        out=out,
        symmetric=symmetric,
        downsample_pad=downsample_pad,
        autoencoder=autoencoder,
        scale=scale_of(scale),
        heads=heads,
        snr_scale=snr_scale,
        half=half,
        align=align,
        data=data,
        console=Console(),
    )
