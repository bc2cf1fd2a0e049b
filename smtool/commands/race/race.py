"""`smtool race`: train the same small transformer on the latents of several autoencoders, in turns, and rank them."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from smtool.commands.race.costs import Costs
from smtool.commands.race.images import training_images, validation_images
from smtool.commands.race.jobs import Encode, Job, Predict, Score, Train
from smtool.commands.race.page import write_report
from smtool.commands.race.partial import found_warnings, planned_warnings
from smtool.commands.race.plan import RacePlan, plan_race
from smtool.commands.race.ranking import race_result
from smtool.commands.race.result import RaceResult
from smtool.commands.race.schedule import Schedule, ScheduledJob
from smtool.commands.race.tables import show
from smtool.commands.race.trial import read_kept
from smtool.commands.race.workers import Outcome, Worker
from smtool.commands.train.interrupts import StopRequest, stop_request
from smtool.data.images.unfinished import alone_in
from smtool.errors import CheckpointError, Interrupted, RecipeError, SmtoolError
from smtool.recipe import Recipe
from smtool.recipe.race import Entry, Judge, Race
from smtool.report.console import Console
from smtool.storage import read_metadata, remove_leftovers, write_text

_POLL = 0.2


@dataclass(frozen=True)
class Budget:
    """Limit for the transformers: steps of each, or seconds of wall time for all of them. None: the recipe's steps."""

    steps: int | None = None
    seconds: float | None = None


def race(
    loaded: tuple[Recipe[Race], Sequence[Entry]],
    *,
    console: Console,
    out: Path | None = None,
    workers: Sequence[Worker],
    budget: Budget = Budget(),
) -> RaceResult:
    """Run or resume a race; write race.json and report.html in `out`, and return the result.

    workers: do one job at a time each (`workers_on` makes processes); they are ended here.
    A racer that fails is left out and the others continue; its error is raised after all files are written.
    """
    recipe, entries = loaded
    folder = out or Path("runs") / recipe.name
    with alone_in(folder):
        check_judge(folder, recipe.tables.judge)
        plan = plan_race(recipe.tables, entries, folder)
        for remark in (*recipe.tables.remarks(), *planned_warnings(entries, plan.judge.features)):
            console.print(remark)
        _prepare(plan, console)
        remove_leftovers(folder)
        write_text(folder / "recipe.toml", recipe.text)
        step, failed = _run(plan, budget, workers, console)
        broken = plan.broken | failed
        trained = [(trial.racer, trial.path / "ckpt.safetensors") for trial in plan.trials if trial.key not in broken]
        partial = found_warnings(trained, plan.judge.features)
        result = race_result(plan, step, broken, Costs.read(folder / "costs.json"), partial)
        result.write(folder / "race.json")
        show(result, console)
        for sentence in partial:
            console.print(sentence)
        for path in (folder / "race.json", *write_report(result, folder)):
            console.print(str(path))
    _raise_first(broken)
    return result


def check_judge(folder: Path, judge: Judge) -> None:
    """Raise RecipeError if the folder holds a finished race that another judge ranked. Its scores would be replaced."""
    earlier = read_kept(folder / "race.json", RaceResult)
    if earlier is None or not earlier.trials:
        return
    ranked = (earlier.metric, earlier.judge, earlier.trials[0].cache_key.num_images)
    if ranked != (judge.metric, judge.features[0], judge.num_images):
        raise RecipeError(
            f"{folder} holds a race judged by {earlier.judged_by}, but the judge is now {judge.metric} on {judge.features[0]}, "
            f"{judge.num_images:,} images.",
            hint=f"Keep the old one (judge.metric={ranked[0]}, judge.num_images={ranked[2]}, judge.features[0]: {ranked[1]}), or "
            f"judge again without training: smtool race {folder} --set judge.metric={judge.metric} --out FOLDER",
        )


def _prepare(plan: RacePlan, console: Console) -> None:
    """Prepare both splits before the workers need them."""
    images = plan.images
    with console.progress(f"preparing {images.train}") as report:
        training_images(images, report)
    validation_images(images)


def _run(
    plan: RacePlan, budget: Budget, workers: Sequence[Worker], console: Console
) -> tuple[int, dict[str, SmtoolError]]:
    """Let the workers do all jobs. Returns the step of the transformers, and key of a failed run or trial -> its error."""
    costs = Costs.read(plan.folder / "costs.json")
    schedule = _schedule(plan, budget, _Clock(costs, len(workers), budget.seconds))
    lock = threading.Condition()
    with stop_request() as stop, console.progress("racing", unit="jobs") as report:

        def work(worker: Worker) -> None:
            while (scheduled := _next(schedule, lock, stop)) is not None:
                outcome = worker.do(_job(plan, scheduled))
                with lock:
                    if not isinstance(outcome.error, Interrupted):
                        costs.add(scheduled.key, scheduled.stage, outcome.seconds, outcome.core_seconds)
                    _tell(console, scheduled, outcome)
                    schedule.finished(scheduled, outcome.error)
                    lock.notify_all()

        with ThreadPoolExecutor(len(workers)) as executor:
            waiting = [executor.submit(work, worker) for worker in workers]
            while not all(future.done() for future in waiting):
                if stop.asked:
                    for worker in workers:
                        worker.stop()
                    with lock:
                        lock.notify_all()
                report(schedule.num_done, schedule.num_jobs)
                threading.Event().wait(_POLL)
        for worker in workers:
            worker.end()
        for future in waiting:
            future.result()
    if stop.asked:
        raise Interrupted("Stopped; all runs are saved.", hint="Repeat the command to resume.")
    return schedule.step, schedule.broken


def _schedule(plan: RacePlan, budget: Budget, clock: "_Clock") -> Schedule:
    """Schedule of all jobs that are not done yet."""
    steps = min(plan.steps, budget.steps or plan.steps)
    reached = {("train-ae", run.key): _reached(run.path) for run in plan.autoencoders}
    reached |= {("train-dit", trial.key): _reached(trial.path) for trial in plan.trials}
    return Schedule(plan, reached, steps=steps, may_open=clock.lasts_for_another)


def _next(schedule: Schedule, lock: threading.Condition, stop: StopRequest) -> ScheduledJob | None:
    """The next job for a worker. Waits if it needs the result of a running job; returns None if nothing is left."""
    with lock:
        while not stop.asked:
            if (scheduled := schedule.next()) is not None:
                return scheduled
            if not schedule.is_busy:
                return None
            lock.wait()
    return None


@dataclass(frozen=True)
class _Clock:
    """Checks a budget in seconds against the time that the transformers took so far, divided by the number of workers."""

    costs: Costs
    workers: int
    seconds: float | None

    def lasts_for_another(self, rounds: int) -> bool:
        if self.seconds is None or rounds == 0:
            return True
        spent = self.costs.seconds("train-dit") / self.workers
        return spent + spent / rounds <= self.seconds


def _job(plan: RacePlan, scheduled: ScheduledJob) -> Job:
    if scheduled.stage in ("train-ae", "encode", "predict"):
        run = next(run for run in plan.autoencoders if run.key == scheduled.key)
        if scheduled.stage == "train-ae":
            assert run.training is not None
            return Train(run.training, run.path, scheduled.step)
        if scheduled.stage == "predict":
            return Predict(run, plan.images, plan.judge, plan.folder)
        return Encode(run, plan.images, next(trial.training for trial in plan.trials if trial.autoencoder == run))
    trial = next(trial for trial in plan.trials if trial.key == scheduled.key)
    if scheduled.stage == "train-dit":
        return Train(trial.training, trial.path, scheduled.step)
    return Score(trial.trained, plan.images, plan.judge, plan.folder)


def _reached(run: Path) -> int:
    """Step of a run's exported checkpoint; 0 if there is none."""
    try:
        return int(read_metadata(run / "ckpt.safetensors").get("step", 0))
    except CheckpointError:
        return 0


def _tell(console: Console, scheduled: ScheduledJob, outcome: Outcome) -> None:
    what = f"{scheduled.stage} {scheduled.key}{f' to step {scheduled.step:,}' if scheduled.step else ''}"
    if outcome.error is None:
        console.print(f"{what}: {outcome.seconds:.0f} s")
    elif not isinstance(outcome.error, Interrupted):
        console.print(f"{what} failed: {outcome.error}")


def _raise_first(broken: dict[str, SmtoolError]) -> None:
    """Raise the first error in its own class, which decides the exit code."""
    if broken:
        name, error = next(iter(broken.items()))
        others = f" ({len(broken) - 1} more in the table)" if len(broken) > 1 else ""
        raise type(error)(f"{name} failed{others}: {error.message}", hint=error.hint)
