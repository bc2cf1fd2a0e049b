"""`smtool sample`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import COMPILE, PRECISION, SAMPLERS, Device, PrecisionName, Tile, computing_device, scale_of
from smtool.errors import RecipeError


@app.command()
def sample(
    checkpoint: Annotated[
        str, typer.Argument(
            metavar="CKPT",
            help="A run or checkpoint of train-dit, or a published SiT, REPA, LightningDiT, DiT-DH, U-ViT or DCTdiff.",
        )
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write. Default: a new one next to the checkpoint.")] = None,
    num_images: Annotated[int, typer.Option(min=1, help="Number of images to draw.")] = 64,
    labels: Annotated[str, typer.Option(help="Classes: balanced, random, or numbers such as 0,3,7.")] = "balanced",
    sampler: Annotated[str | None, typer.Option(help=f"{SAMPLERS}. Default: the checkpoint's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of sampler steps. Default: the checkpoint's.")] = None,
    cfg_scale: Annotated[
        float | None, typer.Option(help="Scale of guidance, by the null class or --guide; 1: none. Default: the checkpoint's.")
    ] = None,
    cfg_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Guide only at times t in this interval; t is 0 for data, 1 for noise. Default: the checkpoint's."),
    ] = None,
    cfg_channels: Annotated[int | None, typer.Option(min=0, help="Guide the first so many latent channels only; 0: all.")] = None,
    epsilon_scale: Annotated[
        float | None, typer.Option(help="Divide predicted noise by this; a little above 1 corrects exposure bias. 1: off.")
    ] = None,
    precision: Annotated[PrecisionName | None, typer.Option(help=PRECISION)] = None,
    compiled: Annotated[bool, typer.Option("--compile", help=COMPILE)] = False,
    guide: Annotated[
        str | None,
        typer.Option(
            metavar="CKPT",
            help="A weaker transformer of the same latents, in place of the null class (autoguidance). Needs --cfg-scale.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed. Image i depends only on the seed and on i.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images per forward pass; does not change the images.")] = 64,
    grid: Annotated[int, typer.Option(min=0, help="Number of images in grid.png; 0 means no grid.")] = 64,
    kind: Annotated[
        Literal["png", "jpeg:75", "jpeg:95", "shards", "npz"],
        typer.Option("--format", help="PNG files, JPEG files of a quality, webdataset shards, or ADM's npz."),
    ] = "png",
    rounding: Annotated[
        Literal["nearest", "truncate"], typer.Option(help="Rounding of pixels to uint8; ADM and REPA truncate.")
    ] = ("nearest"),
    trace: Annotated[
        bool,
        typer.Option(
            "--trace", help="Also measure which frequencies emerge when: trace.json, trace.png. Decodes 16 images at each step."
        ),
    ] = False,
    beside: Annotated[
        list[Path],
        typer.Option(metavar="TRACE", help="With --trace: trace.json of other samples, drawn in one figure. May be repeated."),
    ] = (),  # type: ignore[assignment]
    tile: Tile = None,
    device: Device = "auto",
    autoencoder: Annotated[
        str | None,
        typer.Option(help="Autoencoder that decodes the latents. Default: that in the checkpoint; a published file has none."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|FILE",
            help="For a published file: factor its latents were multiplied by, or file of their mean and std. Default: the "
            "autoencoder's.",
        ),
    ] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="For a published file of unusual size: its attention heads.")] = None,
    snr_scale: Annotated[
        float | None,
        typer.Option(help="For a published DCTdiff, or U-ViT on pixels: SNR scale of its training. Default: as published."),
    ] = None,
) -> None:
    """Draw images from a diffusion transformer. Repeating the command resumes an unfinished one.

    Checkpoints of train-dit hold their autoencoder, statistics and sampler settings. With --autoencoder, another autoencoder with
    latents of the same shape decodes. A published file needs --autoencoder.

    Examples:

    smtool sample runs/sit --num-images 16

    smtool sample runs/sit --num-images 16 --trace

    smtool sample runs/sit --guide runs/small-sit --cfg-scale 1.5

    smtool sample SiT-XL-2-256x256.pt --autoencoder sd-vae-ft-mse --labels 207

    smtool sample celeba64.pth --autoencoder dct:2x4,eta=celeba64
    """
    from smtool.commands.sample.samples import sample_images
    from smtool.report.console import Console

    if beside and not trace:
        raise RecipeError("--beside compares traces, but there is no --trace.", hint="Add --trace.")
    guidance = {"cfg_scale": cfg_scale, "cfg_interval": cfg_interval, "cfg_channels": cfg_channels}
    changes = {"kind": sampler, "steps": steps, "epsilon_scale": epsilon_scale, "precision": precision, **guidance}
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
        guide=guide,
        scale=scale_of(scale),
        heads=heads,
        snr_scale=snr_scale,
        tile=tile,
        trace=trace,
        beside=beside,
        compiled=compiled,
        console=Console(),
    )
