"""How long `smtool --help` takes, beside starting Python and importing typer alone."""

import subprocess
import sys
from collections.abc import Callable

from benchmarks import Row, race


def run() -> list[Row]:
    commands = {
        "smtool --help": [sys.executable, "-m", "smtool", "--help"],
        "smtool train-ae --help": [sys.executable, "-m", "smtool", "train-ae", "--help"],
        "python -c 'import typer'": [sys.executable, "-c", "import typer"],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    }

    def call(command: list[str]) -> Callable[[], object]:
        return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    times = race({name: call(command) for name, command in commands.items()}, repeats=7, warmup=1)
    torch = "python -c 'import torch'"
    rows = [Row(name, times[name] / 1e3, "s", times[torch] / 1e3, torch) for name in ("smtool --help", "smtool train-ae --help")]
    return [*rows, Row("python -c 'import typer'", times["python -c 'import typer'"] / 1e3, "s", times[torch] / 1e3, torch)]
