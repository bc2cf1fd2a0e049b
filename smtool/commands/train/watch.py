"""Everything around the steps of a training run: log rows, checkpoints, validation, stop requests, the end."""

import math
from contextlib import ExitStack

from smtool.commands.train.interrupts import StopRequest
from smtool.commands.train.report import write_report
from smtool.commands.train.run import Run
from smtool.errors import CheckpointError, Interrupted, TrainingError
from smtool.report.console import Console, TrainingLine
from smtool.report.trackers import Trackers, read_metrics
from smtool.storage import read_metadata
from smtool.training.distributed import any_rank, first_rank_ahead, gathered_rows, wait_for_all
from smtool.training.loop import StepReport
from smtool.training.meter import Meter

STEPS_BETWEEN_VOTES = 8
"""Interval of stop checks on several GPUs. Each check makes the host wait for its device."""


class Watch:
    """Consumes the loop's reports. Every rank calls collectives at the same steps and validates its share; the first writes."""

    def __init__(self, run: Run, console: Console, stop: StopRequest, pause_at: int | None = None) -> None:
        self.run, self.console, self.stop, self.pause_at = run, console, stop, pause_at
        self.tables, self.ranks = run.tables, run.training.ranks
        self.meter = Meter()
        with first_rank_ahead(self.ranks):      # which prepares missing images and downloads missing weights
            self.observer = run.observer()
        self.trackers: Trackers | None = None

    def run_training(self) -> None:
        """Train to the last step, to the pause, or until a stop request. Each step is saved before it is validated, which may be
        slow."""
        run = self.run
        with ExitStack() as stack:
            if self.ranks.first:
                self._begin()
                self.trackers = stack.enter_context(self._trackers())
            if not self._train_steps():
                return
            with run.whole_results(everywhere=False):
                if self.trackers:
                    for said in run.conclude(self.observer, self.trackers):
                        self.console.log(said)
        if self.ranks.first:
            run.folder.end("DONE", f"{self.tables.steps} steps")
            write_report(run.folder)
            self.console.log(f"done: {run.folder.ckpt}, {run.folder.report}")

    def _train_steps(self) -> bool:
        """Whether the last step was reached; False at the pause."""
        run = self.run
        with self.console.training(self.tables.steps, first_step=run.first_step) as line:
            if any_rank(self.ranks.first and run.first_step > 0 and not self._is_exported(), self.ranks.device):
                self._export(run.first_step)
            self._catch_up()
            for report in run.reports(run.first_step):
                step = report.step
                self._log(report, line)
                stopping, pausing = self._is_to_stop(step), step == self.pause_at
                if stopping or pausing or self._due(step, self.tables.save_every):
                    self._save(step)
                if self._due(step, self.tables.evaluate_every):
                    self._look(step)
                if stopping and step < self.tables.steps:
                    self._end_early(step)
                if pausing and step < self.tables.steps:
                    return False
        return True

    def _begin(self) -> None:
        run = self.run
        run.checkpoints.prune()
        run.folder.begin(run.recipe, self.ranks.device, self.ranks.world, summary=run.summary, sources=run.sources)
        self.console.log_file = run.folder.log
        for line in (*run.summary, *self.tables.remarks()):
            self.console.log(line)
        self.console.log(f"{run.folder.path}: {'resuming' if run.first_step else 'starting'} at step {run.first_step}")

    def _trackers(self) -> Trackers:
        tracking = self.tables.tracking
        return Trackers(
            self.run.folder.path,
            tensorboard=None if tracking.tensorboard == "installed" else tracking.tensorboard,
            wandb=tracking.wandb or None,
            resume_step=self.run.first_step,
        )

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.tables.steps

    def _catch_up(self) -> None:
        """Validate the step that the run resumes from, if it was interrupted before its validation."""
        step = self.run.first_step
        missed = False
        if self.ranks.first and step > 0 and self._due(step, self.tables.evaluate_every):
            rows = [row for row in read_metrics(self.run.folder.metrics) if row["step"] == step]
            missed = not any(name.startswith("val_") for row in rows for name in row)
        if any_rank(missed, self.ranks.device):
            self._look(step)

    def _log(self, report: StepReport, line: TrainingLine) -> None:
        """Log a row if one is due at this step."""
        self.meter.add(report)
        if not self._due(report.step, self.tables.log_every):
            return
        values = self._checked(report.step) | self.meter.speeds()
        self.meter.clear()
        line.update(
            report.step,
            _losses(values),
            values["images_per_second"],
            self._next_save(report.step),
            updates=self.run.training.optimizers[self.run.player].updates,
        )
        if self.trackers:
            self.trackers.log(report.step, values)

    def _next_save(self, step: int) -> int:
        return min(self.tables.steps, (step // self.tables.save_every + 1) * self.tables.save_every)

    def _checked(self, step: int) -> dict[str, float]:
        """Mean losses since the last row. Raises TrainingError if one is not finite."""
        values = self.meter.losses()
        fp16 = self.tables.precision == "fp16"  # in which an update with infinite gradients is skipped
        bad = [k for k, value in values.items() if not math.isfinite(value) and not (fp16 and k.endswith("_gradient"))]
        if bad:
            latest = self.run.checkpoints.latest()
            raise TrainingError(
                f"Step {step}: {', '.join(bad)} not finite; the run has diverged.",
                hint=(f"The checkpoint of step {latest} is intact. " if latest else "")
                + 'Lower optimizer.lr, lengthen optimizer.warmup, or use precision = "fp32", with another --out or --fresh.',
            )
        return values

    def _is_to_stop(self, step: int) -> bool:
        """Whether a stop was requested on any rank."""
        on_gpus = self.ranks.world > 1 and self.ranks.device.startswith("cuda")
        if on_gpus and step % STEPS_BETWEEN_VOTES:
            return False
        return any_rank(self.stop.asked, self.ranks.device)

    def _save(self, step: int) -> None:
        """Save a checkpoint and export ckpt.safetensors. Losses are checked first, so that no diverged weights are saved."""
        self._checked(step)
        run = self.run
        run.checkpoints.save(step, run.training)
        self._export(step)

    def _is_exported(self) -> bool:
        """Whether ckpt.safetensors is of the step that the run resumes from; not if it was killed before it wrote the file."""
        try:
            return bool(read_metadata(self.run.folder.ckpt).get("step") == self.run.first_step)
        except CheckpointError:
            return False

    def _export(self, step: int) -> None:
        """Write ckpt.safetensors."""
        with self.run.whole_results(everywhere=False):
            if self.ranks.first:
                self.run.export(step)
        wait_for_all()

    def _look(self, step: int) -> None:
        """Validate, and rewrite the report; after the last step the report is written at the end."""
        with self.run.whole_results(everywhere=True):
            own = self.observer.share(step)
        rows = gathered_rows(own, self.ranks)
        if self.trackers:
            self.trackers.log(step, self.observer.look(self.trackers, step, rows))
        if self.ranks.first and step < self.tables.steps:
            write_report(self.run.folder)
        wait_for_all()

    def _end_early(self, step: int) -> None:
        if self.ranks.first:
            write_report(self.run.folder)
        raise Interrupted(
            f"Stopped after step {step}; the run is saved in {self.run.folder.path}.", hint="Repeat the command to resume."
        )


def _losses(values: dict[str, float]) -> dict[str, float]:
    """The values of a row that the live line shows: losses, without learning rates, factors and gradients."""
    hidden = ("lr_", "images_per", "waiting")
    return {k: v for k, v in values.items() if not k.startswith(hidden) and not k.endswith(("_factor", "_gradient"))}
