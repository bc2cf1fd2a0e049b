"""Options that several commands share, and what their values mean."""

import re
from pathlib import Path
from typing import Annotated

import typer

from smtool import errors

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a recipe of smtool's.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N; auto takes a GPU where there is one.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the recipe; KEY= removes it.")]
WeightsDir = Annotated[Path | None, typer.Option(help="Folder of downloaded weights (also: SMTOOL_WEIGHTS).")]
SAMPLERS = "ddim, dpm-solver++, euler, heun, euler-maruyama"      # written out: `--help` does not wait for torch
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON too.")]


def seconds(time: str) -> float:
    """A time such as 90s, 2m or 1h (without a unit: seconds)."""
    found = re.fullmatch(r"(\d+\.?\d*)([smh]?)", time)
    if found is None or not (number := float(found[1])):
        raise errors.RecipeError(f"--budget {time}: expected a time such as 90s, 2m or 1h.")
    return number * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]


def computing_device(name: str) -> str:
    """The device to compute on; "auto" is a GPU where there is one."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        message = f"--device {name}: not available here ({first_line(error)})."
        raise errors.RecipeError(message, hint="Try --device cpu.") from error
    return name


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
