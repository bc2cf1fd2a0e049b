"""`--dry-run` of `train-ae` and `train-dit`: time a few steps of a run beside their predicted time, and save nothing."""

import time
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from smtool.commands.train.memory_advice import predicted_activations
from smtool.commands.train.predicted_time import predictor_for
from smtool.commands.train.run import Run
from smtool.commands.train.run_autoencoder import autoencoder_run
from smtool.commands.train.run_folder import RunFolder
from smtool.commands.train.training import Assemble, algorithms
from smtool.recipe import Recipe, TrainAE
from smtool.recipe.selection import ALL
from smtool.report.console import Console, duration, peak_memory
from smtool.training.distributed import Ranks, joined
from smtool.training.memory import keep_freed_memory

_TIMED = 2
"""Steps that are timed, after one that warms up."""


def dry_run(
    recipe: Recipe[Any],
    assemble: Assemble = autoencoder_run,
    *,
    console: Console,
    device: str = "cpu",
    weights_dir: Path | None = None,
) -> None:
    """Load everything, time steps of each phase (with and without the discriminator, each image size), and print their times
    beside predicted ones, memory and whole duration.

    If the recipe trains a part of an autoencoder, steps that train all of it are timed too, for comparison.
    """
    if device == "cpu":
        keep_freed_memory()
    with joined(device) as ranks, algorithms(recipe, ranks):
        run = assemble(recipe, RunFolder(Path("/nonexistent")), ranks, weights_dir)
        steps, summary = run.tables.steps, run.summary
        phases = _phases(run)
        seconds = [_step_seconds(run, phase.start) for phase in phases]
        memory = peak_memory()      # before the probes of the predictor
        predictor = predictor_for(run)
        predicted = [predictor.seconds(run, _timed(run, phase.start)) for phase in phases]
        remarks = list(run.tables.remarks())
        activations = predicted_activations(run).said()
        sizes = {player: sum(p.numel() for p in module.parameters()) for player, module in run.training.task.players.items()}
        del run
        whole = _all_of_it(recipe, assemble, ranks, weights_dir, phases[-1], seconds[-1])
    duration_of_all = sum(one * (phase.stop - phase.start) for one, phase in zip(seconds, phases, strict=True))
    lines = [
        f"{recipe.path}: {steps} steps; dry run, nothing is saved.",
        *summary,
        *(f"{player}: {size:,} parameters" for player, size in sizes.items()),
        *(_step_line(*found) for found in zip(seconds, phases, predicted, strict=True)),
        predictor.said,
        f"peak memory {_gigabytes(memory)}; activations {activations}",
        *whole,
        f"whole run about {duration(duration_of_all)}, without validation and saving",
        *remarks,
    ]
    console.print("\n  ".join(lines))


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


def _step_line(measured: float, phase: _Phase, predicted: float | None) -> str:
    line = f"step {measured * 1e3:.0f} ms{phase.what}"
    return line if predicted is None else f"{line}; predicted {predicted * 1e3:.0f} ms ({predicted / measured - 1:+.0%})"


def _gigabytes(memory: int | None) -> str:
    return "unknown" if memory is None else f"{memory / 2**30:.2f} GiB"


def _timed(run: Run, start: int) -> range:
    """The steps, counted from 0, that `_step_seconds` times."""
    stop = min(start + 1 + _TIMED, run.tables.steps)
    return range(min(start + 1, stop - 1), stop)


def _step_seconds(run: Run, start: int) -> float:
    """Mean seconds of the second and third step from `start` on, including the work on the device; the first is a warm-up."""
    seconds = []
    began = time.perf_counter()
    for report in islice(run.reports(start), 1 + _TIMED):
        for value in report.values.values():
            value.item()
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    timed = seconds[1:] or seconds
    return sum(timed) / len(timed)
