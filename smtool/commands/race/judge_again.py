"""Judges a finished race again, by another judge and without training, into a new folder."""

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
from smtool.commands.race.predictor_correlations import mean_distances, predictor_correlations
from smtool.commands.race.race import check_judge
from smtool.commands.race.ranking import rankings
from smtool.commands.race.result import Images, Point, RaceResult, Spent, read_race
from smtool.commands.race.tables import show
from smtool.commands.race.trial import TrialScores, scores_path
from smtool.commands.race.workers import Outcome, Worker
from smtool.commands.train.interrupts import stop_request
from smtool.data.images.unfinished import alone_in
from smtool.errors import CheckpointError, Interrupted, RecipeError
from smtool.recipe.files import overridden
from smtool.recipe.race import Judge, Judging
from smtool.report.console import Console
from smtool.storage import read_metadata

_POLL = 0.2


def judge_again(
    folder: Path, changes: Sequence[str], *, console: Console, out: Path | None, workers: Sequence[Worker]
) -> RaceResult:
    """Rank the racers of folder/race.json by another judge, and write race.json and report.html in `out`.

    changes: KEY=VALUE overrides of the race's [judge]. Distances that race.json holds are taken from there, and the runs are not
    needed; without them, no report is written. For other features or another number of images, the samples of every transformer
    are drawn again, which are the same except for their number. Predictors are those of the race: distances of interpolations
    exist only on its extractors. A judging that was interrupted is resumed; workers are ended here.
    Raises CheckpointError if a transformer is needed that is missing or was trained on since the race.
    """
    race = read_race(folder)
    judge = _judge(race, folder, changes)
    if out is None or out.resolve() == folder.resolve():
        raise RecipeError(f"{folder} keeps its judge.", hint="Name another folder for the new scores: --out FOLDER")
    with alone_in(out):
        check_judge(out, judge)
        cells, costs = _stored(race, judge), race.costs
        if cells is None:
            cells, costs = _scored(race, folder, judge, out, workers, console)
        runs = [(cell.racer, _run(folder, cell) / "ckpt.safetensors") for cell in cells]
        points = _points(race, cells, judge)
        result = race.model_copy(update={
            "smtool": __version__,
            "metric": judge.metric,
            "judge": judge.features[0],
            "trials": cells,
            "costs": costs,
            "rankings": {features: rankings(race.racers, cells, features) for features in judge.features},
            "points": points,
            "predictor_correlations": predictor_correlations(points, cells),
            "partial": tuple(found_warnings(runs, judge.features)),
        })  # fmt: skip
        result.write(out / "race.json")
        show(result, console)
        written = write_report(result, out, runs=folder) if runs[0][1].is_file() else []
        for line in (*result.partial, out / "race.json", *written):
            console.print(str(line))
    return result


def _judge(race: RaceResult, folder: Path, changes: Sequence[str]) -> Judge:
    """The judge of the race, with the changes."""
    if others := [change for change in changes if not change.startswith("judge.")]:
        raise RecipeError(
            f"--set {others[0]}: of a finished race, only the judge can be changed.",
            hint="Use --set judge.KEY=VALUE, or race the recipe again.",
        )
    asked = race.trials[0].cache_key
    before = Judge(
        metric=race.metric, features=asked.features, num_images=asked.num_images, predictors=bool(race.points)
    )
    return overridden(Judging(judge=before), changes, folder / "race.json").judge


def _stored(race: RaceResult, judge: Judge) -> tuple[TrialScores, ...] | None:
    """The trials judged by the distances that they hold; None if one is missing."""
    cells = []
    for cell in race.trials:
        if cell.cache_key.num_images != judge.num_images:
            return None
        known = {name: cell.distances[name].judged_by(judge.metric) for name in judge.features if name in cell.distances}
        distances = {name: found for name, found in known.items() if found is not None}
        if len(distances) < len(judge.features):
            return None
        key = cell.cache_key.model_copy(update={"metric": judge.metric, "features": judge.features})
        cells.append(cell.model_copy(update={"cache_key": key, "distances": distances}))
    return tuple(cells)


def _points(race: RaceResult, cells: Sequence[TrialScores], judge: Judge) -> dict[str, Point]:
    """The predictors of the race, with the new distances."""
    if not judge.predictors:
        return {}
    return {
        racer: point.model_copy(update={
            "distances": {name: mean_distances([c.distances[name] for c in cells if c.racer == racer]) for name in judge.features}
        })
        for racer, point in race.points.items()
    }  # fmt: skip


def _scored(
    race: RaceResult, folder: Path, judge: Judge, out: Path, workers: Sequence[Worker], console: Console
) -> tuple[tuple[TrialScores, ...], dict[str, dict[str, Spent]]]:
    """Scores of all trials from their transformers, and the costs with the new ones of scoring."""
    trials = [_trained(folder, cell) for cell in race.trials]
    costs = Costs(out / "costs.json", {key: {**stages} for key, stages in race.costs.items()})
    _score(trials, race.images, judge, out, workers, costs, console)
    return tuple(TrialScores.model_validate_json(scores_path(out, trial.key).read_bytes()) for trial in trials), costs.spent


def _run(folder: Path, cell: TrialScores) -> Path:
    return folder / "transformers" / f"{cell.racer}-seed{cell.seed}"


def _trained(folder: Path, cell: TrialScores) -> TrainedTrial:
    trial = TrainedTrial(cell.racer, cell.seed, cell.autoencoder, _run(folder, cell))
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
