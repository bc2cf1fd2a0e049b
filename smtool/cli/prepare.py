"""`smtool prepare`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import Device, computing_device


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="Folder, zip, tar, shards, ImageNet's tars, or builtin:NAME.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default data/<source>-<size>.")] = None,
    size: Annotated[int, typer.Option(min=1, help="Side of the square images, in pixels.")] = 256,
    crop: Annotated[str, typer.Option(help="center (ADM's), random, or none (resize both sides).")] = "center",
    image_format: Annotated[str, typer.Option("--format", help="png, or jpeg:QUALITY.")] = "png",
    split: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of validation, where the source has none.")] = 0.05,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    max_bad: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of unreadable images that is still accepted.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random crops and of the split.")] = 0,
    latents: Annotated[str | None, typer.Option(metavar="CKPT", help="Encode SOURCE by this autoencoder instead.")] = None,
    dtype: Annotated[Literal["bf16", "fp32"], typer.Option(help="Of the moments, with --latents.")] = "bf16",
    flip: Annotated[bool, typer.Option(help="Encode the mirrored images too, with --latents.")] = True,
    device: Device = "auto",
) -> None:
    """Turn images into webdataset shards with an index and a card, or into latents; a run that was cut off goes on."""
    from smtool.pipelines.prepare.images import prepare
    from smtool.report.console import Console

    console = Console()
    if latents is not None:
        from smtool.pipelines.prepare.latents import prepare_latents

        with console.progress(f"encoding {source}") as report:
            cache = prepare_latents(
                latents,
                data=source,
                image_size=None if _is_prepared(source) else size,
                out=out,
                flip=flip,
                dtype=dtype,
                workers=workers,
                device=computing_device(device),
                announce=lambda folder, size: console.print(f"{folder}: {size / 1e6:.1f} MB"),
                report=report,
            )
        console.print(str(cache))
        return
    with console.progress(f"preparing {source}") as report:
        folder = prepare(
            source,
            out=out,
            size=size,
            crop=crop,  # type: ignore[arg-type]
            image_format=image_format,
            val_fraction=split,
            workers=workers,
            max_bad=max_bad,
            seed=seed,
            report=report,
        )
    console.print(str(folder))


def _is_prepared(source: str) -> bool:
    return (Path(source) / "dataset.json").is_file()
