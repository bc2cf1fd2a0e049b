"""`smtool train-ae` and `smtool train-dit`."""

from pathlib import Path
from typing import Annotated

import typer

from smtool import errors
from smtool.cli.app import app
from smtool.cli.options import Device, Overrides, RecipeArgument, WeightsDir, computing_device


@app.command()
def train_ae(
    recipe: RecipeArgument,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/NAME after the recipe; with --data, runs/NAME-DATA.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Training images, in place of the recipe's data.train and data.validation.")
    ] = None,
    overrides: Overrides = (),  # type: ignore[assignment]
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the run in the folder and start from step 0.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time a few steps beside their predicted time, print memory, save nothing.")
    ] = False,
    max_bad: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Largest fraction of unreadable images in images prepared here. Default: 0.01."),
    ] = None,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
) -> None:
    """Train an autoencoder. Repeating the command resumes an unfinished run.

    Examples:

    smtool train-ae recipes/dsm.toml

    smtool train-ae recipes/dsm.toml --data FOLDER --set steps=5000 --out runs/my-dsm

    smtool train-ae recipes/heal/dsm.toml --data FOLDER --set model.init=VAE
    """
    from smtool.commands.train import training
    from smtool.commands.train.dry_run import dry_run as time_steps
    from smtool.commands.train.given_data import data_changes, run_of
    from smtool.recipe import TrainAE, kind_of, load
    from smtool.report.console import Console

    if kind_of(recipe) is not TrainAE:
        raise errors.RecipeError(f"{recipe} is a recipe of train-dit.", hint=f"Use: smtool train-dit {recipe}")
    console = Console()
    changes = [] if data is None else data_changes(recipe, data, console)
    limit = [] if max_bad is None else [f"data.max_bad={max_bad}"]
    loaded = load(recipe, TrainAE, [*changes, *limit, *overrides], weights_dir=weights_dir)
    if dry_run:
        time_steps(loaded, console=console, device=computing_device(device), weights_dir=weights_dir)
    else:
        out = out if out is not None or data is None else run_of(loaded.name, data)
        training.train(loaded, console=console, out=out, fresh=fresh, device=computing_device(device), weights_dir=weights_dir)


@app.command()
def train_dit(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: runs/NAME, after the recipe.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Training images. Default: the recipe's data.train, else those of the autoencoder.")
    ] = None,
    overrides: Overrides = (),  # type: ignore[assignment]
    online: Annotated[bool, typer.Option("--online", help="Encode the images in every step; do not cache latents.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the run in the folder and start from step 0.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time a few steps beside their predicted time, print memory, save nothing.")
    ] = False,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
) -> None:
    """Train a diffusion transformer on an autoencoder's latents. Repeating the command resumes an unfinished run.

    Examples:

    smtool train-dit recipes/sit.toml

    smtool train-dit recipes/sit.toml --set latents.autoencoder=runs/sd-vae --out runs/sit-sd-vae
    """
    from smtool.commands.train import training
    from smtool.commands.train.dry_run import dry_run as time_steps
    from smtool.commands.train.run_diffusion import diffusion_run
    from smtool.recipe import TrainDiT, kind_of, load
    from smtool.report.console import Console

    if kind_of(recipe) is not TrainDiT:
        raise errors.RecipeError(f"{recipe} is a recipe of train-ae.", hint=f"Use: smtool train-ae {recipe}")
    changes = [f"data.train={data!r}"] if data is not None else []
    latents = ["latents.online=true"] if online else []
    loaded = load(recipe, TrainDiT, [*changes, *overrides, *latents], weights_dir=weights_dir)
    if dry_run:
        time_steps(loaded, diffusion_run, console=Console(), device=computing_device(device), weights_dir=weights_dir)
    else:
        where = computing_device(device)
        training.train(loaded, diffusion_run, console=Console(), out=out, fresh=fresh, device=where, weights_dir=weights_dir)
