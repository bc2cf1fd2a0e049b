"""The `smtool` command: parse, load the recipe, call one pipeline, turn errors into exit codes. Imports nothing heavy."""

import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool import __version__, errors

EXIT_CODES: dict[type[BaseException], int] = {
    errors.RecipeError: 2,
    errors.DataError: 3,
    errors.CheckpointError: 3,
    errors.WeightsError: 4,
    errors.TrainingError: 6,
    errors.DiskError: 7,
    errors.Interrupted: 130,
    KeyboardInterrupt: 130,
}
INTERNAL_ERROR, OUT_OF_MEMORY = 1, 5

app = typer.Typer(
    help="Train, measure and compare image autoencoders by the spectra of their latents (Spectrum Matching, arXiv 2603.14645).",
    epilog="Start with `smtool quickstart`; `smtool recipes list` shows what can be trained.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes_app = typer.Typer(help="List, show and copy the recipes that come with smtool.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a recipe of smtool's.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, mps; auto takes a GPU where there is one.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the recipe; KEY= removes it.")]
WeightsDir = Annotated[Path | None, typer.Option(help="Folder of downloaded weights (also: SMTOOL_WEIGHTS).")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON too.")]


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
                device=_device(device),
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


@app.command()
def train_ae(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<recipe's name>.")] = None,
    data: Annotated[str | None, typer.Option(help="Training data instead of the recipe's data.train.")] = None,
    overrides: Overrides = (),  # type: ignore[assignment]
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Load all, run a step, print memory and time.")] = False,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
) -> None:
    """Train an autoencoder. The same command again goes on where the last one stopped."""
    from smtool.pipelines.train import training
    from smtool.recipe import TrainAE, kind_of, load
    from smtool.report.console import Console

    if kind_of(recipe) is not TrainAE:
        raise errors.RecipeError(f"{recipe} is a recipe of train-dit.", hint=f"Use: smtool train-dit {recipe}")
    changes = [f"data.train={data!r}"] if data is not None else []
    loaded = load(recipe, TrainAE, [*changes, *overrides])
    if dry_run:
        training.dry_run(loaded, console=Console(), device=_device(device), weights_dir=weights_dir)
    else:
        training.train(loaded, console=Console(), out=out, fresh=fresh, device=_device(device), weights_dir=weights_dir)


@app.command()
def train_dit(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<recipe's name>.")] = None,
    data: Annotated[str | None, typer.Option(help="Training images instead of the autoencoder's.")] = None,
    overrides: Overrides = (),  # type: ignore[assignment]
    online: Annotated[bool, typer.Option("--online", help="Encode while training instead of caching latents.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Load all, run a step, print memory and time.")] = False,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
) -> None:
    """Train a diffusion transformer on an autoencoder's latents. The same command again goes on."""
    from smtool.pipelines.train import training
    from smtool.pipelines.train.run_diffusion import diffusion_run
    from smtool.recipe import TrainDiT, kind_of, load
    from smtool.report.console import Console

    if kind_of(recipe) is not TrainDiT:
        raise errors.RecipeError(f"{recipe} is a recipe of train-ae.", hint=f"Use: smtool train-ae {recipe}")
    changes = [f"data.train={data!r}"] if data is not None else []
    loaded = load(recipe, TrainDiT, [*changes, *overrides, *(["latents.online=true"] if online else [])])
    if dry_run:
        training.dry_run(loaded, diffusion_run, console=Console(), device=_device(device), weights_dir=weights_dir)
    else:
        training.train(
            loaded, diffusion_run, console=Console(), out=out, fresh=fresh, device=_device(device), weights_dir=weights_dir
        )


@app.command()
def sample(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="A checkpoint or run folder of train-dit.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default beside the checkpoint.")] = None,
    num_images: Annotated[int, typer.Option(min=1, help="How many.")] = 64,
    labels: Annotated[str, typer.Option(help="balanced, random, or classes such as 0,3,7.")] = "balanced",
    sampler: Annotated[str | None, typer.Option(help="ddim, dpm-solver++, euler, heun, euler-maruyama.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    cfg_scale: Annotated[float | None, typer.Option(help="Classifier-free guidance; 1: none.")] = None,
    cfg_interval: Annotated[tuple[float, float] | None, typer.Option(help="Times t that are guided, 0 data, 1 noise.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Image i follows from seed and i alone.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images per pass; does not change them.")] = 64,
    grid: Annotated[int, typer.Option(min=0, help="How many to show in grid.png.")] = 64,
    kind: Annotated[Literal["png", "shards", "npz"], typer.Option("--format", help="PNG files, shards, or ADM's npz.")] = "png",
    device: Device = "auto",
) -> None:
    """Draw images from a diffusion checkpoint, which carries all that is needed. A run that was cut off goes on."""
    from smtool.pipelines.sample.samples import sample_images
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
        device=_device(device),
        console=Console(),
    )


@app.command("eval")
def evaluate(
    what: Annotated[str | None, typer.Argument(help="Checkpoint, run, or images in files; default: the newest run.")] = None,
    fid: Annotated[bool, typer.Option("--fid", help="Frechet distance on Inception (or rFID); needs its weights.")] = False,
    sfid: Annotated[bool, typer.Option("--sfid", help="The same on a map of Inception that knows places.")] = False,
    inception_score: Annotated[bool, typer.Option("--is", help="Inception score.")] = False,
    fd_dinov2: Annotated[bool, typer.Option("--fd-dinov2", help="Frechet distance on DINOv2; needs its weights.")] = False,
    features: Annotated[list[str], typer.Option(help="Frechet distance on another extractor; may be repeated.")] = (),  # type: ignore[assignment]
    kid: Annotated[bool, typer.Option("--kid", help="Kernel distance, on every extractor asked, else Inception.")] = False,
    pr: Annotated[bool, typer.Option("--pr", help="Precision, recall, density, coverage, on the same.")] = False,
    psnr: Annotated[bool, typer.Option("--psnr", help="Reconstructions: peak signal-to-noise ratio, dB.")] = False,
    ssim: Annotated[bool, typer.Option("--ssim", help="Reconstructions: structural similarity.")] = False,
    lpips: Annotated[bool, typer.Option("--lpips", help="Reconstructions: LPIPS; needs the trunk's weights.")] = False,
    lpips_net: Annotated[str, typer.Option(help="Trunk of --lpips: alex, vgg or squeeze.")] = "alex",
    reference: Annotated[str | None, typer.Option(help="Images to compare with; default: inputs, training images.")] = None,
    data: Annotated[str | None, typer.Option(help="Images to reconstruct; default: the run's validation split.")] = None,
    num_images: Annotated[int | None, typer.Option(min=2, help="Default: the smaller of 50,000 and what there is.")] = None,
    protocol: Annotated[Literal["clean", "paper", "adm"], typer.Option(help="Fixes resize, codec, posterior.")] = "clean",
    sampler: Annotated[str | None, typer.Option(help="ddim, dpm-solver++, euler, heun, euler-maruyama.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    cfg_scale: Annotated[float | None, typer.Option(help="Classifier-free guidance; 1: none.")] = None,
    cfg_interval: Annotated[tuple[float, float] | None, typer.Option(help="Times t that are guided, 0 data, 1 noise.")] = None,
    labels: Annotated[str, typer.Option(help="Classes of samples: balanced, random, or such as 0,3,7.")] = "balanced",
    batch: Annotated[int, typer.Option(min=1, help="Images per pass; does not change the scores.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of samples, posterior samples and the bootstrap.")] = 0,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
    json_path: JsonFile = None,
) -> None:
    """Score an autoencoder's reconstructions, a transformer's samples, or images in files; one pass for all scores."""
    from smtool.pipelines.evaluate.evaluation import evaluate
    from smtool.report.console import Console

    asked = {"fid": fid, "sfid": sfid, "is": inception_score, "kid": kid, "pr": pr, "psnr": psnr, "ssim": ssim}
    asked[f"lpips_{lpips_net}"] = lpips
    changes = {"kind": sampler, "steps": steps, "cfg_scale": cfg_scale, "cfg_interval": cfg_interval}
    evaluate(
        what,
        scores={name for name, on in asked.items() if on},
        features=[*features, *(["dinov2"] if fd_dinov2 else [])],
        reference=reference,
        num_images=num_images,
        protocol=protocol,
        data=data,
        json_path=json_path,
        batch=batch,
        seed=seed,
        device=_device(device),
        weights_dir=weights_dir,
        labels=labels,
        changes={key: value for key, value in changes.items() if value is not None},
        console=Console(),
    )


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
        budget=None if budget is None else _seconds(budget),
        estimator=estimator,
        delta=delta,
        published=list(published),
        out=out,
        json_path=json_path,
        device=_device(device),
        console=Console(),
    )


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the runs and the report.")] = Path("runs/quickstart"),
) -> None:
    """The whole pipeline, small and real, in minutes on a CPU: data, autoencoders, spectra, transformers, scores, a page."""
    from smtool.pipelines.quickstart.study import quickstart
    from smtool.report.console import Console

    quickstart(out, console=Console())


@app.command()
def inspect(what: Annotated[str, typer.Argument(help="A recipe, a checkpoint or a folder of prepared data.")]) -> None:
    """Describe a recipe, a checkpoint or a data folder: parameters, shapes, digests."""
    from smtool.pipelines.inspect.inspection import inspect
    from smtool.report.console import Console

    inspect(what, console=Console())


@recipes_app.command("list")
def recipes_list() -> None:
    """Names of all recipes, each with its first line."""
    from smtool.recipe.files import names, opening

    for name in names():
        typer.echo(f"{name:44} {opening(name)}")


@recipes_app.command("show")
def recipes_show(recipe: RecipeArgument) -> None:
    """Print a recipe."""
    from smtool.recipe.files import find

    typer.echo(find(recipe).read_text(encoding="utf-8"), nl=False)


@recipes_app.command("copy")
def recipes_copy(
    recipe: RecipeArgument,
    to: Annotated[Path, typer.Argument(help="File to write; an existing one is left alone.")],
) -> None:
    """Copy a recipe, to change it."""
    from smtool.recipe.files import command, copy

    copy(recipe, to)
    typer.echo(f"{to}\n  train with: smtool {command(to)} {to}")


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; works after a command too.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"smtool {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line; every error a user can cause ends in one sentence and its exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        sys.exit(_report(error))


def _report(error: BaseException) -> int:
    """Say what happened on stderr, and return the exit code."""
    code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), INTERNAL_ERROR)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        print(
            f"smtool: out of memory ({_first_line(error)}).\n"
            "  Lower data.batch, or raise accumulate, which keeps the batch but computes it in parts; --dry-run shows the need.",
            file=sys.stderr,
        )
        return OUT_OF_MEMORY
    if isinstance(error, KeyboardInterrupt):
        print("smtool: stopped.", file=sys.stderr)
    elif code == INTERNAL_ERROR and not isinstance(error, errors.SmtoolError):
        print(f"smtool: internal error: {type(error).__name__}: {_first_line(error)}\n  --debug shows where.", file=sys.stderr)
    else:
        print(f"smtool: {error}", file=sys.stderr)
    return code


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _is_prepared(source: str) -> bool:
    return (Path(source) / "dataset.json").is_file()


def _seconds(time: str) -> float:
    """A time such as 90s, 2m or 1h (without a unit: seconds)."""
    number, unit = (time[:-1], time[-1]) if time[-1:] in "smh" else (time, "s")
    try:
        return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError as error:
        raise errors.RecipeError(f"--budget {time}: expected a time such as 90s, 2m or 1h.") from error


def _device(name: str) -> str:
    """The device to compute on; "auto" is a GPU where there is one."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        message = f"--device {name}: not available here ({_first_line(error)})."
        raise errors.RecipeError(message, hint="Try --device cpu.") from error
    return name
