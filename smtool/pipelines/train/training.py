"""`smtool train-ae` and `train-dit`: run the loop; log, validate, save and stop where it is due."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from smtool.errors import Interrupted, TrainingError
from smtool.pipelines.train.interrupts import StopRequest, stop_request
from smtool.pipelines.train.report import write_report
from smtool.pipelines.train.run import Run
from smtool.pipelines.train.run_autoencoder import autoencoder_run
from smtool.pipelines.train.run_folder import RunFolder
from smtool.recipe import Recipe
from smtool.report.console import Console, duration, peak_memory
from smtool.report.trackers import Trackers
from smtool.training.distributed import Ranks, any_rank, joined, wait_for_all
from smtool.training.loop import StepReport
from smtool.training.meter import Meter

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
    """Train to the recipe's last step, from the newest checkpoint in `out` (default runs/<recipe's name>). Returns the folder.

    pause_at: an earlier step to save and end at, as if stopped there: several runs then advance in turns, each still planned
    for all its steps.
    Raises RecipeError if the folder was begun with another recipe, TrainingError if a loss is not finite, Interrupted after a
    stop was asked for and all was saved.
    """
    folder = RunFolder(out or Path("runs") / recipe.name)
    with joined(device) as ranks, stop_request() as stop:
        if folder.exists and not fresh:
            folder.check_same(recipe)
        wait_for_all()
        if ranks.first and fresh:
            folder.clear()
        wait_for_all()
        run = assemble(recipe, folder, ranks, weights_dir)
        if run.first_step >= run.tables.steps:
            console.print(f"{folder.path} is finished ({run.first_step} steps). --set steps=N goes on, --fresh starts over.")
            return folder.path
        if pause_at is not None and run.first_step >= pause_at:
            return folder.path
        wait_for_all()
        try:
            _Watch(run, console, stop, pause_at).follow()
        except TrainingError as error:
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
    """Load everything, time a step of each kind there will be, print memory and how long the whole run would take."""
    with joined(device) as ranks:
        run = assemble(recipe, RunFolder(Path("/nonexistent")), ranks, weights_dir)
        task, steps = run.training.task, run.tables.steps
        joins = next((step for step in range(steps) if task.turns(step) != task.turns(0)), steps)
        alone = _step_seconds(run, 0)
        together = _step_seconds(run, joins) if joins < steps else 0.0
    memory = peak_memory()
    lines = [
        f"{recipe.path}: {steps} steps; a trial, no run was begun.",
        *run.facts,
        *(f"{player}: {sum(p.numel() for p in module.parameters()):,} parameters" for player, module in task.players.items()),
        f"step {alone * 1e3:.0f} ms",
        *([f"step {together * 1e3:.0f} ms with the discriminator, from step {joins} on"] if together else []),
        f"peak memory {'unknown' if memory is None else f'{memory / 2**30:.2f} GiB'}",
        f"whole run about {duration(alone * joins + together * (steps - joins))}, validation and saving not counted",
        *run.tables.remarks(),
    ]
    console.print("\n  ".join(lines))


class _Watch:
    """Consumes the loop's reports. Collectives are called by every rank at the same steps; only the first looks and writes."""

    def __init__(self, run: Run, console: Console, stop: StopRequest, pause_at: int | None = None) -> None:
        self.run, self.console, self.stop, self.pause_at = run, console, stop, pause_at
        self.tables, self.ranks = run.tables, run.training.ranks
        self.meter = Meter()
        self.observer = run.observer() if self.ranks.first else None

    def follow(self) -> None:
        run, tables = self.run, self.tables
        with ExitStack() as stack:
            if self.ranks.first:
                self._begin()
            trackers = stack.enter_context(self._trackers()) if self.ranks.first else None
            line = stack.enter_context(self.console.training(tables.steps, first_step=run.first_step))
            for report in run.reports(run.first_step):
                self.meter.add(report)
                if self._due(report, tables.log_every):
                    values = self._checked(report.step) | self.meter.speeds()
                    self.meter.clear()
                    line.update(
                        report.step,
                        _losses(values),
                        values["images_per_second"],
                        self._next_save(report.step),
                        updates=run.training.optimizers[run.player].updates,
                    )
                    if trackers:
                        trackers.log(report.step, values)
                if self._due(report, tables.evaluate_every):
                    with run.whole_results():
                        if trackers and self.observer:
                            trackers.log(report.step, self.observer.look(trackers, report.step))
                    if trackers and report.step < tables.steps:
                        write_report(run.folder)
                stopping = any_rank(self.stop.asked, self.ranks.device)
                pausing = report.step == self.pause_at
                if stopping or pausing or self._due(report, tables.save_every):
                    self._save(report)
                if stopping and report.step < tables.steps:
                    if self.ranks.first:
                        write_report(run.folder)
                    raise Interrupted(
                        f"Stopped after step {report.step}; all is saved in {run.folder.path}.",
                        hint="The same command goes on from here.",
                    )
                if pausing and report.step < tables.steps:
                    return
        if self.ranks.first:
            run.folder.end("DONE", f"{tables.steps} steps")
            write_report(run.folder)
            self.console.log(f"done: {run.folder.ckpt}, {run.folder.report}")

    def _begin(self) -> None:
        run = self.run
        run.folder.begin(run.recipe, self.ranks.device, self.ranks.world, facts=run.facts, sources=run.sources)
        self.console.log_file = run.folder.log
        for line in (*run.facts, *self.tables.remarks()):
            self.console.log(line)
        self.console.log(f"{run.folder.path}: {'going on' if run.first_step else 'starting'} at step {run.first_step}")

    def _trackers(self) -> Trackers:
        tracking = self.tables.tracking
        return Trackers(
            self.run.folder.path,
            tensorboard=None if tracking.tensorboard == "installed" else tracking.tensorboard,
            wandb=tracking.wandb or None,
            resume_step=self.run.first_step,
        )

    def _due(self, report: StepReport, every: int) -> bool:
        return report.step % every == 0 or report.step == self.tables.steps

    def _next_save(self, step: int) -> int:
        return min(self.tables.steps, (step // self.tables.save_every + 1) * self.tables.save_every)

    def _checked(self, step: int) -> dict[str, float]:
        """The losses since the last row; one that is not finite ends the run."""
        values = self.meter.losses()
        fp16 = self.tables.precision == "fp16"  # there an infinite gradient is an update left out, not the end
        bad = [k for k, value in values.items() if not math.isfinite(value) and not (fp16 and k.endswith("_gradient"))]
        if bad:
            latest = self.run.checkpoints.latest()
            raise TrainingError(
                f"step {step}: not finite: {', '.join(bad)}; the run has diverged.",
                hint=(f"The checkpoint of step {latest} is whole. " if latest else "")
                + 'Lower optimizer.lr, lengthen optimizer.warmup, or use precision = "fp32", with another --out or --fresh.',
            )
        return values

    def _save(self, report: StepReport) -> None:
        """A checkpoint folder and the file to share; the losses are looked at first, so that no diverged weights are kept."""
        self._checked(report.step)
        run = self.run
        run.checkpoints.save(report.step, run.training)
        with run.whole_results():
            if self.ranks.first:
                run.share(report.step)
        wait_for_all()


def _step_seconds(run: Run, step: int) -> float:
    """Mean seconds of the second and third step from `step` on; the first one warms up."""
    seconds = [report.seconds for report in islice(run.reports(step), 3)]
    return sum(seconds[1:]) / len(seconds[1:]) if len(seconds) > 1 else seconds[0]


def _losses(values: dict[str, float]) -> dict[str, float]:
    """What the live line shows of a row: the losses, not rates, factors or gradients."""
    hidden = ("lr_", "images_per", "waiting")
    return {k: v for k, v in values.items() if not k.startswith(hidden) and not k.endswith(("_factor", "_gradient"))}

