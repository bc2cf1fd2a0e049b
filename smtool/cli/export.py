"""`smtool export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app


@app.command()
def export(
    what: Annotated[str, typer.Argument(metavar="CKPT", help="An autoencoder of any tool; with --autoencoder, a transformer.")],
    out: Annotated[Path, typer.Option(help="Folder for diffusers, .safetensors file for smtool; must be new.")],
    to: Annotated[Literal["diffusers", "smtool"], typer.Option(help="Whose format.")] = "diffusers",
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="To diffusers in spite of symmetric padding, which it must then be told of.")
    ] = False,
    downsample_pad: Annotated[
        Literal["asymmetric", "symmetric"] | None, typer.Option(help="Padding of the encoder; default: what the file means.")
    ] = None,
    autoencoder: Annotated[str | None, typer.Option(help="CKPT is a published SiT, REPA or U-ViT on its latents.")] = None,
    scale: Annotated[float | None, typer.Option(help="What those latents were multiplied by; else the autoencoder's.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Its attention heads, if it has no published size.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store an autoencoder's weights as float16: half the size.")] = False,
) -> None:
    """Write an autoencoder for diffusers, or what another tool wrote as a checkpoint of smtool's.

    smtool export runs/dsm --out dsm-vae; smtool export SiT-XL-2-256x256.pt --to smtool --autoencoder sd-vae --out sit.safetensors
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
        scale=scale,
        heads=heads,
        half=half,
        console=Console(),
    )
