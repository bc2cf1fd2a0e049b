"""Several small trainings in parallel, each in its own process with one thread.

Small networks gain little from more threads, and lose much when the machine is busy.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtool.commands.train.interrupts import stop_request
from smtool.commands.train.run_autoencoder import autoencoder_run
from smtool.commands.train.run_diffusion import diffusion_run
from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.training import train
from smtool.errors import Interrupted, SmtoolError
from smtool.recipe import Recipe, TrainDiT, load
from smtool.report.console import Console
from smtool.report.trackers import read_metrics
from smtool.worker_process import ONE_THREAD, WorkerDied, WorkerProcess


@dataclass(frozen=True)
class Job:
    """A recipe to train in a run folder. changes: KEY=VALUE strings with which the recipe was loaded."""

    recipe: Recipe[Any]
    out: Path
    changes: tuple[str, ...] = ()

    def is_finished(self) -> bool:
        """Whether the run reached the recipe's last step. Raises RecipeError if it was started with another recipe."""
        folder = RunFolder(self.out)
        if not folder.is_done:
            return False
        folder.check_same(self.recipe)
        return self.last_step() >= self.recipe.tables.steps

    def last_step(self) -> int:
        rows = read_metrics(RunFolder(self.out).metrics)
        return rows[-1]["step"] if rows else 0


def train_side_by_side(jobs: Sequence[Job], *, console: Console) -> None:
    """Train every job to its recipe's last step. Finished runs are skipped, unfinished ones are resumed.

    After a stop request or a failure, all others save and end. Raises the error of the failed run, or Interrupted.
    """
    unfinished = [job for job in jobs if not job.is_finished()]
    if not unfinished:
        console.print("All runs are already trained.")
        return
    steps = sum(job.recipe.tables.steps for job in unfinished)
    workers = [WorkerProcess(ONE_THREAD) for _ in unfinished]
    with (
        stop_request() as stop,
        console.progress("training", unit="steps") as report,
        ThreadPoolExecutor(len(unfinished)) as executor,
    ):
        runs = [executor.submit(worker.call, _train, job) for worker, job in zip(workers, unfinished, strict=True)]
        shown = -1
        while not all(run.done() for run in runs):
            if stop.asked or any(run.done() and run.exception() for run in runs):
                for worker in workers:
                    worker.stop()
            done = sum(job.last_step() for job in unfinished)
            if done > shown:
                report(done, steps)
                shown = done
            time.sleep(0.2)
        for worker in workers:
            worker.end()
        if stop.asked:
            raise Interrupted("Stopped; all runs are saved.", hint="Repeat the command to resume.")
        _raise_failure(unfinished, runs)
        if shown < steps:
            report(steps, steps)


def _train(job: Job) -> None:
    """Train one job. Runs in a worker process that shares the parent's screen, so it prints nothing."""
    recipe = load(str(job.recipe.path), type(job.recipe.tables), job.changes)
    assemble: Callable[..., Any] = diffusion_run if isinstance(recipe.tables, TrainDiT) else autoencoder_run
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        train(recipe, assemble, console=Console(quiet=True), out=job.out)


def _raise_failure(jobs: Sequence[Job], runs: Sequence[Future[None]]) -> None:
    """Raise the error of the run that failed, not that of a run which was stopped because of it."""
    failed = [(job, error) for job, run in zip(jobs, runs, strict=True) if (error := run.exception())]
    for job, error in sorted(failed, key=lambda pair: isinstance(pair[1], Interrupted | WorkerDied)):
        if isinstance(error, SmtoolError):
            raise type(error)(f"{job.out}: {error.message}", hint=error.hint) from error
        said = str(error) if isinstance(error, WorkerDied) else f"internal error: {type(error).__name__}: {error}"
        raise SmtoolError(f"{job.out}: {said}") from error
