"""`smtool sample`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import SAMPLERS, Device, computing_device


@app.command()
def sample(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="A checkpoint or run of train-dit; SiT, REPA, U-ViT file.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default beside the checkpoint.")] = None,
    num_images: Annotated[int, typer.Option(min=1, help="How many.")] = 64,
    labels: Annotated[str, typer.Option(help="balanced, random, or classes such as 0,3,7.")] = "balanced",
    sampler: Annotated[str | None, typer.Option(help=f"{SAMPLERS}.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    cfg_scale: Annotated[float | None, typer.Option(help="Classifier-free guidance; 1: none.")] = None,
    cfg_interval: Annotated[tuple[float, float] | None, typer.Option(help="Times t that are guided, 0 data, 1 noise.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Image i follows from seed and i alone.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images per pass; does not change them.")] = 64,
    grid: Annotated[int, typer.Option(min=0, help="How many to show in grid.png.")] = 64,
    kind: Annotated[Literal["png", "shards", "npz"], typer.Option("--format", help="PNG files, shards, or ADM's npz.")] = "png",
    rounding: Annotated[Literal["nearest", "truncate"], typer.Option(help="To uint8; ADM's and REPA's writers truncate.")] = (
        "nearest"
    ),
    device: Device = "auto",
    autoencoder: Annotated[str | None, typer.Option(help="For a published file: the autoencoder of its latents.")] = None,
    scale: Annotated[float | None, typer.Option(help="What its latents were multiplied by; default: the autoencoder's.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Its attention heads, if it has no published size.")] = None,
) -> None:
    """Draw images from a diffusion checkpoint, which carries all that is needed. A run that was cut off goes on.

    A published SiT, REPA or U-ViT file needs its autoencoder: smtool sample SiT-XL-2-256x256.pt --autoencoder sd-vae-ft-mse
    """
    from smtool.commands.sample.samples import sample_images
    from smtool.report.console import Console

    changes = {"kind": sampler, "steps": steps, "cfg_scale": cfg_scale, "cfg_interval": cfg_interval}
    sample_images(
        checkpoint,
        out=out,
        num_images=num_images,
        labels=labels,
        changes={key: value for key, value in changes.items() if value is not None},
        seed=seed,
        batch=batch,
        grid=grid,
        kind=kind,
        rounding=rounding,
        device=computing_device(device),
        autoencoder=autoencoder,
        scale=scale,
        heads=heads,
        console=Console(),
    )
