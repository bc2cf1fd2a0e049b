"""Start-up time of every command, compared with `import torch` alone: the aim is at most one second more.

A command is stopped at the function that does its work, after the recipe is loaded and all modules that this function needs are
imported. `inspect` and `recipes list` run to their end.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable

from benchmarks import Row, timings

# Arguments, and the function at which the command is stopped.
COMMANDS: dict[str, tuple[list[str], str]] = {
    "--help": (["--help"], ""),
    "recipes list": (["recipes", "list"], ""),
    "inspect dsm": (["inspect", "dsm"], ""),
    "inspect sit": (["inspect", "sit"], ""),
    "train-ae dsm": (["train-ae", "dsm"], "smtool.commands.train.training.train"),
    "train-dit sit": (["train-dit", "sit"], "smtool.commands.train.training.train"),
    "prepare builtin:photos": (["prepare", "builtin:photos"], "smtool.commands.prepare.images.prepare"),
    "sample": (["sample", "runs/sit"], "smtool.commands.sample.samples.sample_images"),
    "eval --psnr": (["eval", "runs/dsm", "--psnr"], "smtool.commands.evaluate.evaluation.evaluate"),
    "spectrum": (["spectrum", "runs/dsm"], "smtool.diffusability.spectrum.spectrum"),
    "race faces": (["race", "race/faces"], "smtool.commands.race.race.race"),
    "export": (["export", "runs/dsm", "--out", "exported"], "smtool.commands.export.export"),
    "quickstart": (["quickstart"], "smtool.commands.quickstart.study.quickstart"),
}
PROGRAM = """
import importlib, sys
arguments, function = sys.argv[1:-1], sys.argv[-1]
if function:
    module, _, name = function.rpartition(".")
    setattr(importlib.import_module(module), name, lambda *args, **named: sys.exit())
from smtool.cli import app
app(arguments)
"""
REPEATS = 3


def run() -> list[Row]:
    calls = {name: [PROGRAM, *arguments, function] for name, (arguments, function) in COMMANDS.items()}
    calls |= {"torch": ["import torch"], "typer": ["import typer"]}
    found = timings({name: _start(call) for name, call in calls.items()}, repeats=REPEATS, warmup=1)
    median, best = ({name: measure(times) / 1e3 for name, times in found.items()} for measure in (statistics.median, min))
    torch = median["torch"]
    rows = [
        Row(f"smtool {name}", median[name], "s", torch, "import torch", torch / (torch + 1), best["torch"] / best[name])
        for name in COMMANDS
    ]
    return [*rows, Row("import typer", median["typer"], "s", torch, "import torch")]


def _start(call: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", *call], check=True, stdout=subprocess.DEVNULL)
