"""Options that several commands share, and functions that parse their values."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from smtool import errors
from smtool.image_shape import ImageSize

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a packaged recipe (`smtool recipes list`).")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, mps, or auto: a GPU if there is one, else the CPU.")]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; KEY= removes the key. May be repeated."),
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(help="Folder of downloaded weights. Default: the environment variable SMTOOL_WEIGHTS, else torch's cache."),
]
SAMPLERS = "ddim, dpm-solver++, euler, heun, euler-maruyama, dpm-solver-fast, euler-maruyama-sde, euler-maruyama-ode"
"""A copy of the names in smtool.diffusion, which would import torch for `--help`."""
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
PRECISION = (
    "Precision of the transformer: fp32, or autocast to bf16 or fp16. auto: on a GPU that of its training, else fp32. "
    "Default: the checkpoint's."
)
COMPILE = "Compile the transformer with torch.compile: slow start, faster steps on a GPU."
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the result to this file, as JSON.")]

Tile = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="PX", help="Encode and decode overlapping tiles of this side, for images too large for the memory."
    ),
]


def seconds(time: str) -> float:
    """Seconds of a time such as 90s, 2m or 1h. A number without a unit is seconds. Raises RecipeError for any other text."""
    found = re.fullmatch(r"(\d+\.?\d*)([smh]?)", time)
    if found is None or not (number := float(found[1])):
        raise errors.RecipeError(f"--budget {time}: expected a time such as 90s, 2m or 1h.")
    return number * {"s": 1, "m": 60, "h": 3600}[found[2] or "s"]


def scale_of(text: str | None) -> float | Path | None:
    """The positive number, or the existing file, of --scale. Raises RecipeError for any other text."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        raise errors.RecipeError(
            f"--scale {text}: neither a number nor a file.", hint="Pass a number such as 0.18215, or a file of mean and std."
        ) from None
    if not 0 < number < float("inf"):
        raise errors.RecipeError(f"--scale {text}: expected a number above 0, such as 0.18215.")
    return number


def image_size(text: str) -> ImageSize:
    """The size of a text such as 256 or 512x768. Raises RecipeError for any other text."""
    try:
        return ImageSize.parse(text)
    except ValueError as error:
        raise errors.RecipeError(f"--size {error}.") from None


def computing_device(name: str, *, float64: bool = False) -> str:
    """The device of that name; "auto" is a GPU that works for the command if there is one, else the CPU.

    float64: whether the command computes in float64 on the device, which Apple's GPUs cannot. Raises RecipeError if the device is
    not available, or cannot do what the command needs.
    """
    import torch

    from smtool.devices import best_device

    if name == "auto":
        best = best_device()
        return "cpu" if _reason(best, float64=float64) else best
    try:
        where = torch.device(name)
        if where.type != "cuda" or not torch.cuda.is_available():
            torch.empty(0, device=where)
        elif (where.index or 0) >= torch.cuda.device_count():      # a tensor would take memory of GPU 0 in each rank
            raise RuntimeError(f"{torch.cuda.device_count()} GPUs are visible, from cuda:0 on")
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error).split(". ")[0]      # a page follows for devices that PyTorch was not built for
        message = f"--device {name}: not available here ({reason.rstrip('.')})."
        raise errors.RecipeError(message, hint="Try --device cpu.") from error
    if reason := _reason(name, float64=float64):
        raise errors.RecipeError(f"--device {name}: {reason}.", hint="Try --device cpu.")
    return name


def _reason(device: str, *, float64: bool) -> str:
    """Why a device that is there cannot be used; "" if it can."""
    from smtool.devices import has_float64

    if has_float64(device):
        return ""
    if float64:
        return "this command computes in float64, which an Apple GPU does not have"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "an Apple GPU has no collective operations, so that several processes cannot use it"
    return ""


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
