"""`smtool prepare`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import Device, WeightsDir, computing_device
from smtool.errors import RecipeError

_OF_IMAGES = {"crop": "--crop", "image_format": "--format", "split": "--split", "max_bad": "--max-bad", "seed": "--seed"}
_OF_CACHES = {"dtype": "--dtype", "flip": "--flip"}


@app.command()
def prepare(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="Folder, zip, tar, shards, ImageNet's tars, or builtin:NAME.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default data/<source>-<size>.")] = None,
    size: Annotated[int, typer.Option(min=1, help="Side of the square images, in pixels.")] = 256,
    crop: Annotated[str, typer.Option(help="center (ADM's), random, or none (resize both sides).")] = "center",
    image_format: Annotated[str, typer.Option("--format", help="png, or jpeg:QUALITY.")] = "png",
    split: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of validation, where the source has none.")] = 0.05,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    max_bad: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of unreadable images that is still accepted.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random crops and of the split.")] = 0,
    latents: Annotated[str | None, typer.Option(metavar="CKPT", help="Encode SOURCE by this tokenizer instead.")] = None,
    features: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="Cache a teacher's features of SOURCE instead: dinov2-s, squeezenet ...")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="The transformer's tokens, with --features: latent side / patch.")
    ] = None,
    dtype: Annotated[Literal["bf16", "fp32"], typer.Option(help="Of the numbers, with --latents or --features.")] = "bf16",
    flip: Annotated[bool, typer.Option(help="The mirrored images too, with --latents or --features.")] = True,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
) -> None:
    """Turn images into webdataset shards, or shards into latents or a teacher's features; a run that was cut off goes on."""
    from smtool.commands.prepare.images import prepare
    from smtool.report.console import Console

    console = Console()
    if latents is not None and features is not None:
        raise RecipeError("--latents and --features are two caches.", hint="Make one after the other.")
    if (features is None) != (tokens is None):
        hint = "It is the latents' side / patch: 16 for 256 px, an f8 autoencoder and patch = 2."
        raise RecipeError("--features and --tokens N go together: a teacher is sized for one feature per token.", hint=hint)
    _refuse_idle(context, source, cache=latents is not None or features is not None)
    caching: dict[str, Any] = {
        "data": source,
        "image_size": None if _is_prepared(source) else size,
        "out": out,
        "flip": flip,
        "dtype": dtype,
        "workers": workers,
        "device": computing_device(device) if latents or features else "cpu",
        "announce": lambda folder, size: console.print(f"{folder}: {size:,} bytes ({size / 1e6:.1f} MB)"),
    }
    if latents is not None:
        from smtool.commands.prepare.latents import prepare_latents

        with console.progress(f"encoding {source}") as report:
            folder = prepare_latents(latents, weights_dir=weights_dir, report=report, **caching)
    elif features is not None and tokens is not None:
        from smtool.commands.prepare.features import prepare_features, token_grid

        with console.progress(f"{features} on {source}") as report:
            folder = prepare_features(features, tokens=token_grid(tokens), weights_dir=weights_dir, report=report, **caching)
    else:
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
        console.print(_summary(folder))
    console.print(str(folder))


def _refuse_idle(context: typer.Context, source: str, *, cache: bool) -> None:
    """RecipeError for an option that was given and would change nothing."""
    names = {**_OF_IMAGES, **({"size": "--size"} if _is_prepared(source) else {})} if cache else _OF_CACHES
    for name, option in names.items():
        if (origin := context.get_parameter_source(name)) is not None and origin.name == "COMMANDLINE":
            hint = "Prepare the images with it first, then cache what a network makes of that folder."
            raise RecipeError(
                f"{option} {'says how images are prepared, not what is made of them' if cache else 'is of caches'}.",
                hint=hint if cache else "It goes with --latents or --features.",
            )


def _summary(folder: Path) -> str:
    """What would be noticed too late: a split that is empty, classes that the source's folders did not give."""
    from smtool.data.images.card import read_card

    card = read_card(folder)
    classes = f"{card.num_classes:,} classes" if card.num_classes else "no classes"
    skipped = f", {card.skipped:,} unusable ones left out (skipped.jsonl)" if card.skipped else ""
    return f"{card.count('train'):,} images for training, {card.count('val'):,} for validation, {classes}{skipped}"


def _is_prepared(source: str) -> bool:
    return (Path(source) / "dataset.json").is_file()
