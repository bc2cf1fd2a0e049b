"""Several small `smtool train-ae` or `train-dit` at once, each in a process of its own with one thread.

Networks small enough for this gain little from more threads, and lose much to them when the machine is busy.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from smtool.errors import DataError, DiskError, Interrupted, RecipeError, SmtoolError, TrainingError, WeightsError
from smtool.pipelines.train.interrupts import stop_request
from smtool.pipelines.train.run_folder import RunFolder
from smtool.recipe import Recipe, TrainDiT
from smtool.report.console import Console
from smtool.report.trackers import read_metrics

_ERRORS: dict[int, type[SmtoolError]] = {
    2: RecipeError,
    3: DataError,
    4: WeightsError,
    6: TrainingError,
    7: DiskError,
    130: Interrupted,
}
_STOPPED = (130, -signal.SIGTERM)


@dataclass(frozen=True)
class Job:
    """A recipe to train in a run folder. changes: the KEY=VALUE with which the recipe was loaded."""

    recipe: Recipe[Any]
    out: Path
    changes: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """What `smtool` is called with."""
        kind = "train-dit" if isinstance(self.recipe.tables, TrainDiT) else "train-ae"
        changes = [word for change in self.changes for word in ("--set", change)]
        return [kind, str(self.recipe.path), "--out", str(self.out), *changes]

    def is_finished(self) -> bool:
        """Whether the run reached the recipe's last step. Raises RecipeError if it was begun with another recipe."""
        folder = RunFolder(self.out)
        if not folder.is_done:
            return False
        folder.check_same(self.recipe)
        return self.last_step() >= self.recipe.tables.steps

    def last_step(self) -> int:
        rows = read_metrics(RunFolder(self.out).metrics)
        return rows[-1]["step"] if rows else 0


@dataclass(frozen=True)
class _Child:
    """A job that runs."""

    job: Job
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def raise_failure(self) -> None:
        if code := self.process.returncode:
            self.said.seek(0)
            lines = self.said.read().decode(errors="replace").strip().removeprefix("smtool: ")
            raise _ERRORS.get(code, SmtoolError)(f"{self.job.out}: {lines or f'ended with exit code {code}'}")


def train_side_by_side(jobs: Sequence[Job], *, console: Console) -> None:
    """Bring every job to its recipe's last step. Finished runs are left as they are, unfinished ones are resumed.

    A stop, or the failure of one, lets the others save and end too. Raises what the failed one says.
    """
    unfinished = [job for job in jobs if not job.is_finished()]
    if not unfinished:
        console.print("Everything is trained already.")
        return
    steps = sum(job.recipe.tables.steps for job in unfinished)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_request())
        children = [_started(job, stack) for job in unfinished]
        shown = -1
        report = stack.enter_context(console.progress("training", unit="steps"))
        while any(child.process.poll() is None for child in children):
            if stop.asked or any(child.process.returncode for child in children):
                _end(children)
            done = sum(child.job.last_step() for child in children)
            if done > shown:
                report(done, steps)
                shown = done
            time.sleep(0.2)
        if stop.asked:
            raise Interrupted("Stopped; what was trained is saved.", hint="The same command goes on from here.")
        for child in sorted(children, key=lambda child: child.process.returncode in _STOPPED):
            child.raise_failure()
        if shown < steps:
            report(steps, steps)


def _started(job: Job, stack: ExitStack) -> _Child:
    said: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (the stack closes it)
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "smtool", *job.command, "--device", "cpu"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
    )
    return _Child(job, process, said)


def _end(children: list[_Child]) -> None:
    """Ask once more is harmless: a run that is stopping goes on to save."""
    for child in children:
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGTERM)

