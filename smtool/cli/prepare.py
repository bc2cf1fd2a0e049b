"""`smtool prepare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from smtool.cli.app import app
from smtool.cli.options import Device, Tile, WeightsDir, computing_device, image_size
from smtool.errors import RecipeError

if TYPE_CHECKING:
    from smtool.data.images.card import JpegPrice

_OF_IMAGES = {
    "crop": "--crop",
    "image_format": "--format",
    "split": "--split",
    "max_bad": "--max-bad",
    "seed": "--seed",
    "icc": "--icc",
    "white": "--white",
    "sample_key": "--sample-key",
    "member": "--member",
    "labels": "--labels",
    "label_column": "--label-column",
    "image_column": "--image-column",
    "mode": "--mode",
    "upsample": "--upsample",
}
_REASONS = 8  # largest number of reasons in the summary
_OF_CACHES = {"dtype": "--dtype", "flip": "--flip", "precision": "--precision"}


@app.command()
def prepare(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="Folder of images, zip, tar, webdataset shards, ImageNet's tars, parquet, or builtin:photos.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: data/SOURCE-SIZE; for caches, one below data/.")
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="N|HxW", help="Height and width of the prepared images, in pixels; one number is a square.")
    ] = "256",
    crop: Annotated[
        str, typer.Option(help="center (as in ADM), random, or none: scale both sides, without cropping.")
    ] = "center",
    image_format: Annotated[str, typer.Option("--format", help="png, or jpeg:QUALITY with a quality from 1 to 100.")] = "png",
    split: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Fraction of images for validation, if the source has no validation split.")
    ] = 0.05,
    workers: Annotated[int, typer.Option(min=0, help="Number of processes; 0 means one per core.")] = 0,
    max_bad: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest fraction of unreadable images; more are an error.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random crops and of the split.")] = 0,
    icc: Annotated[
        Literal["convert", "ignore"], typer.Option(help="Convert images with a color profile to sRGB, or ignore the profile.")
    ] = "convert",
    white: Annotated[
        int, typer.Option(min=1, max=65535, help="Level of 16-bit images that becomes white: 4095 for values of 12 bits.")
    ] = 65535,
    sample_key: Annotated[
        Literal["first-dot", "last-dot"],
        typer.Option(help="Dot at which the name of a sample in webdataset shards ends; the rest names the member."),
    ] = "first-dot",
    member: Annotated[
        str | None, typer.Option(metavar="NAME", help="Member that is the image where samples hold several, such as input.png.")
    ] = None,
    labels: Annotated[
        Literal["auto", "folders", "file", "none"],
        typer.Option(help="Labels from class folders or from a label file, where both are there; none: no labels."),
    ] = "auto",
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of a table or a label file that holds the labels.")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of a table that holds the images.")
    ] = None,
    mode: Annotated[
        Literal["L", "LA", "RGB", "RGBA"], typer.Option(help="Channels: L is gray, A is alpha. Without A, alpha is put on white.")
    ] = "RGB",
    upsample: Annotated[
        Literal["bicubic", "dct"],
        typer.Option(help="How smaller images are enlarged; dct: to exactly twice the size, other sizes are left out."),
    ] = "bicubic",
    latents: Annotated[
        str | None, typer.Option(metavar="CKPT", help="Cache the latents of SOURCE, encoded by this autoencoder.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(metavar="TEACHER", help="Cache this teacher's features of SOURCE: dinov2-s, squeezenet, ...")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="With --features: the transformer's tokens per side, which is latent side / patch."),
    ] = None,
    dtype: Annotated[
        Literal["bf16", "fp32"], typer.Option(help="With --latents or --features: number format of the cache.")
    ] = "bf16",
    flip: Annotated[bool, typer.Option(help="With --latents or --features: also cache the mirrored images.")] = True,
    precision: Annotated[
        Literal["fp32", "bf16"],
        typer.Option(help="With --latents: precision of the autoencoder while it encodes; bf16 is faster on a GPU, and rounds."),
    ] = "fp32",
    tile: Tile = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="FEATURES", help="With --latents dct:BxM: also find the fewest coefficients per block, by the "
                     "Frechet distance in these features (random, squeezenet, ...)."),
    ] = None,
    max_fd: Annotated[
        float | None, typer.Option(min=0.0, help="With --judge: largest distance allowed. Default: that of as many other images.")
    ] = None,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
) -> None:
    """Crop and resize images into webdataset shards; or cache their latents or a teacher's features.

    Repeating the command resumes an unfinished one.

    Examples:

    smtool prepare builtin:photos --size 64

    smtool prepare FOLDER --size 256 --split 0.02 --out data/my-images

    smtool prepare data/my-images --latents runs/dsm

    smtool prepare data/my-images --latents dct:4x9,eta=measured --judge random
    """
    from smtool.commands.prepare.images import prepare
    from smtool.report.console import Console

    console = Console()
    if latents is not None and features is not None:
        raise RecipeError("--latents and --features cannot be combined.", hint="Run the command once for each cache.")
    if tile is not None and latents is None:
        raise RecipeError("--tile has no effect without --latents.", hint="Leave it out.")
    if precision != "fp32" and features is not None:
        raise RecipeError("--precision has no effect on features.", hint="Leave it out.")
    if judge is not None and latents is None:
        raise RecipeError("--judge has no effect without --latents.", hint="It judges the coefficients of --latents dct:BxM.")
    if max_fd is not None and judge is None:
        raise RecipeError("--max-fd has no effect without --judge.", hint="Add --judge random, or leave it out.")
    if (features is None) != (tokens is None):
        hint = "N is the side of the latents / patch: 16 for 256 px, an f8 autoencoder and patch = 2."
        raise RecipeError(
            "--features needs --tokens N, and --tokens needs --features: one feature is cached per token.", hint=hint
        )
    _refuse_idle(context, source, cache=latents is not None or features is not None)
    caching: dict[str, Any] = {
        "data": source,
        "image_size": None if _is_prepared(source) else image_size(size),
        "out": out,
        "flip": flip,
        "dtype": dtype,
        "workers": workers,
        "device": computing_device(device) if latents or features else "cpu",
        "announce": lambda folder, size: console.print(f"{folder}: {size:,} bytes ({size / 1e6:.1f} MB)"),
    }
    if latents is not None:
        from smtool.commands.prepare.latents import dct_lines, prepare_latents
        from smtool.data.latents.card import read_latent_card

        if judge is not None:
            from smtool.commands.prepare.coefficients import check_judge, judge_cache

            check_judge(latents, judge, weights_dir)
        with console.progress(f"encoding {source}") as report:
            folder = prepare_latents(
                latents, tile=tile, precision=precision, weights_dir=weights_dir, report=report, **caching
            )
        if judge is not None:
            with console.progress(f"judging coefficients by {judge}", unit="numbers of coefficients") as report:
                judge_cache(
                    folder, judge, max_fd=max_fd, device=caching["device"], weights_dir=weights_dir, report=report
                )
        for line in dct_lines(read_latent_card(folder)):
            console.print(line)
    elif features is not None and tokens is not None:
        from smtool.commands.prepare.features import prepare_features, token_grid

        with console.progress(f"{features} on {source}") as report:
            folder = prepare_features(features, tokens=token_grid(tokens), weights_dir=weights_dir, report=report, **caching)
    else:
        with console.progress(f"preparing {source}") as report:
            folder = prepare(
                source,
                out=out,
                size=image_size(size),
                crop=crop,  # type: ignore[arg-type]
                image_format=image_format,
                val_fraction=split,
                workers=workers,
                max_bad=max_bad,
                seed=seed,
                icc=icc,
                white=white,
                sample_key=sample_key,
                member=member,
                labels=labels,
                label_column=label_column,
                image_column=image_column,
                mode=mode,
                upsample=upsample,
                report=report,
            )
        for line in _summary(folder):
            console.print(line)
    console.print(str(folder))


def _refuse_idle(context: typer.Context, source: str, *, cache: bool) -> None:
    """Raise RecipeError for an option that was given but has no effect here."""
    names = {**_OF_IMAGES, **({"size": "--size"} if _is_prepared(source) else {})} if cache else _OF_CACHES
    for name, option in names.items():
        if (origin := context.get_parameter_source(name)) is not None and origin.name == "COMMANDLINE":
            hint = f"Prepare the images with {option} first, then make the cache from that folder."
            raise RecipeError(
                f"{option} {'has no effect on a cache of latents or features' if cache else 'is an option of caches'}.",
                hint=hint if cache else "Add --latents or --features, or leave it out.",
            )


def _summary(folder: Path) -> list[str]:
    """Lines for the console: images in each split, classes, what was done to images, and what was left out and why."""
    from smtool.data.images.card import read_card
    from smtool.data.images.decoding import used_bits

    card = read_card(folder)
    classes = f"{card.num_classes:,} classes" if card.num_classes else "no classes"
    classes += f" ({card.unlabelled})" if card.unlabelled else ""
    lines = [f"{card.count('train'):,} images for training, {card.count('val'):,} for validation, {classes}"]
    if card.jpeg is not None:
        lines.append(_price(card.image_format, card.jpeg))
    remarks = {**({f"smaller than {card.image_size.words}, enlarged": card.upscaled} if card.upscaled else {}), **card.remarks}
    total = card.count("train") + card.count("val")
    lines += [f"{count:,} of {total:,} images: {remark}" for remark, count in remarks.items()]
    if bits := used_bits(card.remarks, card.white):
        lines.append(f"These images are dark: no level is above {2**bits - 1}. --white {2**bits - 1} shows it as white.")
    if card.left_out:
        reasons = [f"{count:,} {reason}" for reason, count in card.left_out.items()]
        more = f"; {len(reasons) - _REASONS:,} other reasons" if len(reasons) > _REASONS else ""
        lines.append(f"left out: {sum(card.left_out.values()):,} (skipped.jsonl): {'; '.join(reasons[:_REASONS])}{more}")
    return lines


def _price(stored: str, price: "JpegPrice") -> str:
    """What an image takes as PNG and as JPEG, and what JPEG loses."""
    png, jpeg = f"{price.png_bytes / 1e3:,.1f} kB", f"{price.jpeg_bytes / 1e3:,.1f} kB"
    loss = f"{f'PSNR {price.psnr:.1f} dB' if price.psnr is not None else 'without loss'} ({price.images} images)"
    if stored == "png":
        return f"an image takes {png} as PNG; --format {price.format} would take {jpeg}, {loss}"
    return f"an image takes {jpeg} as {price.format} instead of {png} as PNG, {loss}"


def _is_prepared(source: str) -> bool:
    from smtool.data.images.card import is_prepared

    return is_prepared(Path(source))
