"""`smtool race`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smtool import errors
from smtool.cli.app import app
from smtool.cli.options import Device, Overrides, WeightsDir, computing_device, seconds

if TYPE_CHECKING:
    from smtool.commands.race.race import Budget


@app.command()
def race(
    what: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE | AE... | RACE...", help="A race recipe, or autoencoders, or folders of finished races."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the race. Default: runs/NAME after the recipe, or runs/race.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Training images, in place of the recipe's data.train.")] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME|STEPS", help="Limit for the transformers: a time (90s, 10m, 1h), or steps each.")
    ] = None,
    overrides: Overrides = (),  # type: ignore[assignment]
    jobs: Annotated[int, typer.Option(min=0, help="Number of worker processes; 0 means one per core, or one per GPU.")] = 0,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
) -> None:
    """Train the same small transformer on the latents of several autoencoders, and rank them by the quality of its samples.

    Given folders of finished races, rank all their autoencoders together, and report which cheap measures predict the ranking.
    Given one folder and --set judge.KEY=VALUE, judge its samples again into --out, without training.

    Repeating the command resumes an unfinished race.

    Examples:

    smtool race runs/sd-vae runs/dsm --budget 10m

    smtool race recipes/race/faces.toml --budget 1h

    smtool race runs/race-faces runs/race-masks-and-deltas

    smtool race runs/race-faces --set judge.metric=kd --out runs/race-faces-kd
    """
    from smtool.commands.race.adhoc_recipe import OUT, adhoc_race
    from smtool.commands.race.judge_again import judge_again
    from smtool.commands.race.pool import is_race_folder, pool_races
    from smtool.commands.race.race import race as run
    from smtool.commands.race.workers import workers_on
    from smtool.recipe.race import load_race
    from smtool.report.console import Console

    finished = all(map(is_race_folder, what))
    if finished and not overrides:
        pool_races(what, console=Console(), out=out)
        return
    if finished and len(what) > 1:
        raise errors.RecipeError("--set judges one finished race again, but several are given.", hint="Judge each by itself.")
    changes = [*([f"data.train={data!r}"] if data is not None else []), *overrides]
    is_recipe = len(what) == 1 and (what[0].endswith(".toml") or not Path(what[0]).exists())
    devices = _devices(device)
    workers = workers_on(devices, jobs or (os.cpu_count() or 1 if devices == ["cpu"] else len(devices)), weights_dir)
    if finished:
        judge_again(Path(what[0]), changes, console=Console(), out=out, workers=workers)
        return
    run(
        load_race(what[0], changes, weights_dir=weights_dir) if is_recipe else adhoc_race(what, out or OUT, changes),
        console=Console(),
        out=out if is_recipe else out or OUT,
        workers=workers,
        budget=_budget(budget),
    )


def _budget(text: str | None) -> "Budget":
    """Parse --budget: a plain number is steps; a number with a unit (90s, 10m, 1h) is a time."""
    from smtool.commands.race.race import Budget

    if text is None:
        return Budget()
    if text.isdecimal() and int(text) > 0:
        return Budget(steps=int(text))
    if not text.endswith(("s", "m", "h")):
        raise errors.RecipeError(f"--budget {text}: expected steps such as 2000, or a time such as 90s, 10m or 1h.")
    return Budget(seconds=seconds(text))


def _devices(name: str) -> list[str]:
    """All GPUs for "auto" (if there are any) and "cuda"; else the named device alone."""
    import torch

    device = computing_device(name, float64=True)
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if device == "cuda" else [device]
