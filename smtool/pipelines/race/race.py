"""`smtool race`: the same small transformer on the latents of several autoencoders, in turns, and what can be told from it."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtool.datasets import open_images
from smtool.datasets.unfinished import alone_in
from smtool.errors import CheckpointError, Interrupted, SmtoolError
from smtool.pipelines.race.costs import Costs
from smtool.pipelines.race.crew import Answer, Worker
from smtool.pipelines.race.page import write_report
from smtool.pipelines.race.plan import RacePlan, plan_race
from smtool.pipelines.race.standing import race_result
from smtool.pipelines.race.tables import show
from smtool.pipelines.race.turns import Piece, Turns
from smtool.pipelines.race.work import Encode, Predict, Score, Train, Work
from smtool.pipelines.train.interrupts import stop_request
from smtool.pipelines.train.validate import open_validation
from smtool.recipe import Data, Recipe
from smtool.recipe.race import Entry, Race
from smtool.report.console import Console
from smtool.storage import read_metadata, write_json, write_text

_POLL = 0.2


@dataclass(frozen=True)
class Budget:
    """Of the transformers: steps, or seconds that the race's clock runs while they train. None: as far as the recipe goes."""

    steps: int | None = None
    seconds: float | None = None


def race(
    loaded: tuple[Recipe[Race], Sequence[Entry]],
    *,
    console: Console,
    out: Path | None = None,
    workers: Sequence[Worker],
    budget: Budget = Budget(),
) -> dict[str, Any]:
    """Run a race to its end, or on from where it was stopped; write race.json and report.html in `out`, and return race.json.

    workers: who does the work, each one piece at a time (`crew` makes processes); they are ended.
    A racer that breaks is left out, and the others go on; its error is raised after all is written.
    """
    recipe, entries = loaded
    folder = out or Path("runs") / recipe.name
    with alone_in(folder):
        plan = plan_race(recipe.tables, entries, folder)
        for remark in recipe.tables.remarks():
            console.print(remark)
        _prepare(plan, console)
        write_text(folder / "recipe.toml", recipe.text)
        step, failed = _run(plan, budget, workers, console)
        broken = plan.broken | failed
        result = race_result(plan, step, broken, Costs.read(folder / "costs.json"))
        write_json(folder / "race.json", result)
        show(result, console)
        for path in (folder / "race.json", *write_report(result, folder)):
            console.print(str(path))
    _raise_first(broken)
    return result


def _prepare(plan: RacePlan, console: Console) -> None:
    """Both splits, before workers ask for them all at once."""
    images = plan.images
    with console.progress(f"preparing {images.train}") as report:
        open_images(images.train, "train", image_size=images.image_size, report=report)
    open_validation(Data(train=images.train, validation=images.validation, image_size=images.image_size, batch=1))


def _run(
    plan: RacePlan, budget: Budget, workers: Sequence[Worker], console: Console
) -> tuple[int, dict[str, SmtoolError]]:
    """Let the workers do all there is to do. Returns the transformers' step, and what broke by key of run or cell."""
    costs = Costs.read(plan.folder / "costs.json")
    steps = min(plan.steps, budget.steps or plan.steps)
    reached = {("train-ae", run.key): _reached(run.path) for run in plan.autoencoders}
    reached |= {("train-dit", cell.key): _reached(cell.path) for cell in plan.cells}
    clock = _Clock(costs, len(workers), budget.seconds)
    turns = Turns(plan, reached, steps=steps, may_open=clock.lasts_for_another)
    lock = threading.Condition()
    with stop_request() as stop, console.progress("racing", unit="pieces of work") as report:
        total, done = turns.left, 0

        def work(worker: Worker) -> None:
            nonlocal done
            while (piece := _next(turns, lock, stop)) is not None:
                answer = worker.do(_work(plan, piece))
                with lock:
                    done += 1
                    if not isinstance(answer.error, Interrupted):
                        costs.add(piece.key, piece.stage, answer.seconds, answer.core_seconds)
                    _tell(console, piece, answer)
                    turns.finished(piece, answer.error)
                    lock.notify_all()

        with ThreadPoolExecutor(len(workers)) as executor:
            waiting = [executor.submit(work, worker) for worker in workers]
            while not all(future.done() for future in waiting):
                if stop.asked:
                    for worker in workers:
                        worker.stop()
                    with lock:
                        lock.notify_all()
                report(done, total)
                threading.Event().wait(_POLL)
        for worker in workers:
            worker.end()
        for future in waiting:
            future.result()
    if stop.asked:
        raise Interrupted("Stopped; what was trained is saved.", hint="The same command goes on from here.")
    return turns.step, turns.broken


def _next(turns: Turns, lock: threading.Condition, stop: Any) -> Piece | None:
    """The next piece for a worker, which may have to wait for another's; None when there is nothing left."""
    with lock:
        while not stop.asked:
            if (piece := turns.next()) is not None:
                return piece
            if not turns.is_busy:
                return None
            lock.wait()
    return None


@dataclass(frozen=True)
class _Clock:
    """Whether a budget in seconds lasts for another round: the clock is what transformers cost so far, shared among workers."""

    costs: Costs
    workers: int
    seconds: float | None

    def lasts_for_another(self, rounds: int) -> bool:
        if self.seconds is None or rounds == 0:
            return True
        spent = self.costs.seconds("train-dit") / self.workers
        return spent + spent / rounds <= self.seconds


def _work(plan: RacePlan, piece: Piece) -> Work:
    if piece.stage in ("train-ae", "encode", "predict"):
        run = next(run for run in plan.autoencoders if run.key == piece.key)
        if piece.stage == "train-ae":
            assert run.training is not None
            return Train(run.training, run.path, piece.step)
        if piece.stage == "predict":
            return Predict(run, plan.images, plan.judge, plan.folder)
        return Encode(run, plan.images, next(cell.training for cell in plan.cells if cell.autoencoder == run))
    cell = next(cell for cell in plan.cells if cell.key == piece.key)
    if piece.stage == "train-dit":
        return Train(cell.training, cell.path, piece.step)
    return Score(cell, plan.images, plan.judge, plan.folder)


def _reached(run: Path) -> int:
    """The step of a run on disk."""
    try:
        return int(read_metadata(run / "ckpt.safetensors").get("step", 0))
    except CheckpointError:
        return 0


def _tell(console: Console, piece: Piece, answer: Answer) -> None:
    where = f" to step {piece.step:,}" if piece.step else ""
    if answer.error is None:
        console.print(f"{piece.stage} {piece.key}{where}: {answer.seconds:.0f} s")
    elif not isinstance(answer.error, Interrupted):
        console.print(f"{piece.stage} {piece.key}{where} broke: {answer.error}")


def _raise_first(broken: dict[str, SmtoolError]) -> None:
    """What broke first, in its own kind, so that the exit code says what it was."""
    if broken:
        name, error = next(iter(broken.items()))
        others = f" ({len(broken) - 1} more in the table)" if len(broken) > 1 else ""
        raise type(error)(f"{name} broke{others}: {error.message}", hint=error.hint)


