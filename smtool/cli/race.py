"""`smtool race`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smtool import errors
from smtool.cli.app import app
from smtool.cli.options import Device, Overrides, WeightsDir, computing_device, seconds

if TYPE_CHECKING:
    from smtool.pipelines.race.race import Budget


@app.command()
def race(
    what: Annotated[list[str], typer.Argument(metavar="RECIPE | AE [AE ...]", help="A race recipe, or autoencoders.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the race; default runs/<recipe's name>.")] = None,
    data: Annotated[str | None, typer.Option(help="Images to race on, instead of the recipe's data.train.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME|STEPS", help="Of the transformers: 10m, 1h, or steps.")] = None,
    overrides: Overrides = (),  # type: ignore[assignment]
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core, or per GPU.")] = 0,
    device: Device = "auto",
    weights_dir: WeightsDir = None,
) -> None:
    """Train the same small transformer on the latents of several autoencoders, and say what can be told of their order."""
    from smtool.pipelines.race.race import race as run
    from smtool.recipe.race import is_race, load_race
    from smtool.report.console import Console

    changes = [f"data.train={data!r}"] if data is not None else []
    if len(what) > 1 or not is_race(what[0]):
        raise errors.RecipeError(f"{what[0]} is no race recipe.")
    devices = _devices(device)
    run(
        load_race(what[0], [*changes, *overrides]),
        console=Console(),
        out=out,
        budget=_budget(budget),
        jobs=jobs or _default_jobs(devices),
        devices=devices,
        weights_dir=weights_dir,
    )


def _budget(text: str | None) -> "Budget":
    """A number is steps; with a unit, 90s, 10m or 1h, it is time."""
    from smtool.pipelines.race.race import Budget

    if text is None:
        return Budget()
    if text.isdecimal() and int(text) > 0:
        return Budget(steps=int(text))
    if text[-1:] not in "smh":
        raise errors.RecipeError(f"--budget {text}: expected steps such as 2000, or a time such as 90s, 10m or 1h.")
    return Budget(seconds=seconds(text))


def _devices(name: str) -> list[str]:
    """Every GPU for "auto" and "cuda"; else the one that was named."""
    import torch

    device = computing_device(name)
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if device == "cuda" else [device]


def _default_jobs(devices: list[str]) -> int:
    import os

    return (os.cpu_count() or 1) if devices == ["cpu"] else len(devices)
