"""Judges the transformers of a finished race again, by another judge and without training, into a new folder."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from smtool import __version__
from smtool.commands.race.costs import Costs
from smtool.commands.race.jobs import Score
from smtool.commands.race.page import write_report
from smtool.commands.race.partial import found_warnings
from smtool.commands.race.plan import TrainedTrial
from smtool.commands.race.predictor_correlations import points_of, predictor_correlations
from smtool.commands.race.race import check_judge
from smtool.commands.race.ranking import rankings
from smtool.commands.race.result import Images, RaceResult, read_race
from smtool.commands.race.tables import show
from smtool.commands.race.trial import TrialScores, scores_path
from smtool.commands.race.workers import Outcome, Worker
from smtool.commands.train.interrupts import stop_request
from smtool.data.images.unfinished import alone_in
from smtool.errors import CheckpointError, Interrupted, RecipeError
from smtool.recipe.files import load
from smtool.recipe.race import Judge, Race
from smtool.report.console import Console
from smtool.storage import read_metadata

_POLL = 0.2


def judge_again(
    folder: Path, changes: Sequence[str], *, console: Console, out: Path | None, workers: Sequence[Worker]
) -> RaceResult:
    """Draw the samples of every transformer of a race again, score them, and write race.json and report.html in `out`.

    changes: KEY=VALUE overrides of [judge] in the folder's recipe.toml, which has no overrides of the race's own command line.
    Samples are the same as in the race, except for their number. Predictors are those of the race: distances of interpolations
    exist only on its extractors. A judging that was interrupted is resumed; workers are ended here.
    Raises CheckpointError if a transformer is missing or was trained on since the race.
    """
    judge = _judge(folder, changes)
    if out is None or out.resolve() == folder.resolve():
        raise RecipeError(f"{folder} keeps its judge.", hint="Name another folder for the new scores: --out FOLDER")
    race = read_race(folder)
    trials = [_trained(folder, cell) for cell in race.trials]
    with alone_in(out):
        check_judge(out, judge)
        costs = Costs(out / "costs.json", {key: {**stages} for key, stages in race.costs.items()})
        _score(trials, race.images, judge, out, workers, costs, console)
        cells = tuple(TrialScores.model_validate_json(scores_path(out, trial.key).read_bytes()) for trial in trials)
        points = points_of(race.racers, cells, judge.features, folder) if judge.predictors else {}
        result = race.model_copy(update={
            "smtool": __version__,
            "metric": judge.metric,
            "judge": judge.features[0],
            "trials": cells,
            "costs": costs.spent,
            "rankings": {features: rankings(race.racers, cells, features) for features in judge.features},
            "points": points,
            "predictor_correlations": predictor_correlations(points, cells),
            "partial": tuple(found_warnings([(one.racer, one.path / "ckpt.safetensors") for one in trials], judge.features)),
        })  # fmt: skip
        result.write(out / "race.json")
        show(result, console)
        for line in (*result.partial, out / "race.json", *write_report(result, out, runs=folder)):
            console.print(str(line))
    return result


def _judge(folder: Path, changes: Sequence[str]) -> Judge:
    if others := [change for change in changes if not change.startswith("judge.")]:
        raise RecipeError(
            f"--set {others[0]}: of a finished race, only the judge can be changed.",
            hint="Use --set judge.KEY=VALUE, or race the recipe again.",
        )
    return load(str(folder / "recipe.toml"), Race, changes).tables.judge


def _trained(folder: Path, cell: TrialScores) -> TrainedTrial:
    trial = TrainedTrial(cell.racer, cell.seed, cell.autoencoder, folder / "transformers" / f"{cell.racer}-seed{cell.seed}")
    if read_metadata(trial.path / "ckpt.safetensors")["digest"] != cell.cache_key.transformer:
        raise CheckpointError(
            f"{trial.path} is not the transformer that {folder / 'race.json'} scored.",
            hint="Repeat the race's own command first.",
        )
    return trial


def _score(
    trials: Sequence[TrainedTrial],
    images: Images,
    judge: Judge,
    out: Path,
    workers: Sequence[Worker],
    costs: Costs,
    console: Console,
) -> None:
    """Let the workers score all trials. Raises the first error after all others are scored."""
    free: SimpleQueue[Worker] = SimpleQueue()
    for worker in workers:
        free.put(worker)
    with (
        stop_request() as stop,
        console.progress("judging", unit="trials") as report,
        ThreadPoolExecutor(len(workers)) as executor,
    ):

        def work(trial: TrainedTrial) -> Outcome:
            worker = free.get()
            try:
                return Outcome(Interrupted("Stopped."), 0.0, 0.0) if stop.asked else worker.do(Score(trial, images, judge, out))
            finally:
                free.put(worker)

        waiting = [executor.submit(work, trial) for trial in trials]
        while not all(future.done() for future in waiting):
            if stop.asked:
                for worker in workers:
                    worker.stop()
            report(sum(future.done() for future in waiting), len(waiting))
            threading.Event().wait(_POLL)
    for worker in workers:
        worker.end()
    outcomes = [future.result() for future in waiting]
    if stop.asked:
        raise Interrupted("Stopped; all scores so far are saved.", hint="Repeat the command to resume.")
    for trial, outcome in zip(trials, outcomes, strict=True):
        if outcome.error is not None:
            raise type(outcome.error)(f"{trial.key} failed: {outcome.error.message}", hint=outcome.error.hint)
        costs.spent.setdefault(trial.key, {}).pop("score", None)
        costs.add(trial.key, "score", outcome.seconds, outcome.core_seconds)
