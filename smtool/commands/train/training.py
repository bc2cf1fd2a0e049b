"""`smtool train-ae` and `train-dit`: train a run from its newest checkpoint to its end, or time a few steps of it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from smtool.commands.train.interrupts import stop_request
from smtool.commands.train.memory_advice import memory_advice, predicted_activations
from smtool.commands.train.report import write_report
from smtool.commands.train.run import Run
from smtool.commands.train.run_autoencoder import autoencoder_run
from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.watch import Watch
from smtool.devices import gpu_algorithms, is_out_of_memory, reason_of
from smtool.errors import OutOfMemory, TrainingError
from smtool.recipe import Recipe, TrainAE
from smtool.recipe.selection import ALL
from smtool.report.console import Console, duration, peak_memory
from smtool.training.distributed import Ranks, joined, wait_for_all
from smtool.training.memory import keep_freed_memory

Assemble = Callable[[Recipe[Any], RunFolder, Ranks, Path | None], Run]


def train(
    recipe: Recipe[Any],
    assemble: Assemble = autoencoder_run,
    *,
    console: Console,
    out: Path | None = None,
    fresh: bool = False,
    device: str = "cpu",
    weights_dir: Path | None = None,
    pause_at: int | None = None,
) -> Path:
    """Train to the recipe's last step, from the newest checkpoint in `out` (default runs/NAME). Returns the folder.

    fresh: delete the run in the folder first. pause_at: an earlier step at which to save and return, so that several runs can
    advance in turns; learning rates still follow the recipe's steps.
    Raises RecipeError if the run was started with another recipe, TrainingError if a loss is not finite, and Interrupted after a
    stop request, when the run is saved.
    """
    folder = RunFolder(out or Path("runs") / recipe.name)
    if device == "cpu":
        keep_freed_memory()
    with joined(device) as ranks, _algorithms(recipe, ranks):
        if folder.exists and not fresh:
            folder.check_same(recipe)
        wait_for_all()
        if ranks.first and fresh:
            folder.clear()
        wait_for_all()
        run = assemble(recipe, folder, ranks, weights_dir)
        steps = run.tables.steps
        if run.first_step > steps or (run.first_step == steps and folder.is_done and folder.ckpt.is_file()):
            longer = "" if run.tables.optimizer.schedule == "cosine" else "--set steps=N continues it, "
            console.print(f"{folder.path} is finished ({run.first_step} steps). {longer}--fresh restarts it.")
            return folder.path
        if pause_at is not None and pause_at <= run.first_step < steps:
            return folder.path
        wait_for_all()
        try:
            with stop_request() as stop:      # not earlier: before the first step there is nothing to save
                Watch(run, console, stop, pause_at).run_training()
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemory(f"out of memory ({reason_of(error)}).", hint=memory_advice(run)) from error
            if not isinstance(error, TrainingError):
                raise
            if ranks.first:
                folder.end("FAILED", error.message)
                write_report(folder)
            raise
    return folder.path


def dry_run(
    recipe: Recipe[Any],
    assemble: Assemble = autoencoder_run,
    *,
    console: Console,
    device: str = "cpu",
    weights_dir: Path | None = None,
) -> None:
    """Load everything, time steps of each phase (with and without the discriminator, each image size), and print memory and whole
    duration.

    If the recipe trains a part of an autoencoder, steps that train all of it are timed too, for comparison.
    """
    if device == "cpu":
        keep_freed_memory()
    with joined(device) as ranks, _algorithms(recipe, ranks):
        run = assemble(recipe, RunFolder(Path("/nonexistent")), ranks, weights_dir)
        steps, summary = run.tables.steps, run.summary
        phases = _phases(run)
        seconds = [_step_seconds(run, phase.start) for phase in phases]
        memory, remarks = peak_memory(), list(run.tables.remarks())
        activations = predicted_activations(run).said()
        sizes = {player: sum(p.numel() for p in module.parameters()) for player, module in run.training.task.players.items()}
        del run
        whole = _all_of_it(recipe, assemble, ranks, weights_dir, phases[-1], seconds[-1])
    duration_of_all = sum(one * (phase.stop - phase.start) for one, phase in zip(seconds, phases, strict=True))
    lines = [
        f"{recipe.path}: {steps} steps; dry run, nothing is saved.",
        *summary,
        *(f"{player}: {size:,} parameters" for player, size in sizes.items()),
        *(f"step {one * 1e3:.0f} ms{phase.what}" for one, phase in zip(seconds, phases, strict=True)),
        f"peak memory {_gigabytes(memory)}; activations {activations}",
        *whole,
        f"whole run about {duration(duration_of_all)}, without validation and saving",
        *remarks,
    ]
    console.print("\n  ".join(lines))


def _algorithms(recipe: Recipe[Any], ranks: Ranks) -> AbstractContextManager[None]:
    tables = recipe.tables
    return gpu_algorithms(ranks.device, deterministic=tables.deterministic, same_shapes=tables.same_shapes)


@dataclass(frozen=True)
class _Phase:
    """Steps from `start` to `stop` in which the same networks are updated. what: a clause for the console."""

    start: int
    stop: int
    what: str = ""


def _phases(run: Run) -> list[_Phase]:
    """The phases of a run: before the discriminator, the discriminator alone, both; each at every size of the training images."""
    steps, tables = run.tables.steps, run.tables
    adversary = getattr(tables, "discriminator", None)
    start, entry = (steps, steps) if adversary is None else (min(adversary.start, steps), min(adversary.entry, steps))
    players = {0: "", start: " of the discriminator alone", entry: " with the discriminator"}
    schedule = tables.data.schedule if isinstance(tables, TrainAE) else None
    sizes = {} if schedule is None else {first: f" at {size.words}" for first, size in schedule.sizes}
    begins = sorted({step for step in (*players, *sizes) if step < steps})
    found = []
    for first, after in pairwise([*begins, steps]):
        what = players[max(step for step in players if step <= first)]
        what += sizes[max(step for step in sizes if step <= first)] if sizes else ""
        found.append(_Phase(first, after, f"{what}, from step {first} on" if first and what else what))
    return found


def _all_of_it(
    recipe: Recipe[Any], assemble: Assemble, ranks: Ranks, weights_dir: Path | None, phase: _Phase, seconds: float
) -> list[str]:
    """A line that compares a step of the last phase with one that trains the whole autoencoder, if the recipe trains a part."""
    if getattr(recipe.tables, "train", ALL) == ALL:
        return []
    tables = recipe.tables.model_copy(update={"train": ALL, "lr_multipliers": {}})
    everything = assemble(replace(recipe, tables=tables), RunFolder(Path("/nonexistent")), ranks, weights_dir)
    other = _step_seconds(everything, phase.start)
    memory = _gigabytes(peak_memory())
    return [f'for comparison, train = "all": step {other * 1e3:.0f} ms instead of {seconds * 1e3:.0f} ms, peak memory {memory}']


def _gigabytes(memory: int | None) -> str:
    return "unknown" if memory is None else f"{memory / 2**30:.2f} GiB"


def _step_seconds(run: Run, step: int) -> float:
    """Mean seconds of the second and third step from `step` on, including the work on the device; the first is a warm-up."""
    seconds = []
    began = time.perf_counter()
    for report in islice(run.reports(step), 3):
        for value in report.values.values():
            value.item()
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return sum(seconds[1:]) / len(seconds[1:]) if len(seconds) > 1 else seconds[0]
