"""Pooling of several races, to have enough autoencoders for rank correlations of predictors."""

from collections.abc import Sequence
from pathlib import Path

from smtool.commands.race.page import write_pooled_report
from smtool.commands.race.predictor_correlations import predictor_correlations
from smtool.commands.race.ranking import rankings
from smtool.commands.race.result import SCHEMA, Point, PooledResult, RaceResult, read_race
from smtool.commands.race.tables import show
from smtool.commands.race.trial import TrialScores
from smtool.errors import RecipeError
from smtool.report.console import Console
from smtool.storage import parsing


def is_race_folder(what: str) -> bool:
    """Whether a folder holds a finished race."""
    return (Path(what) / "race.json").is_file()


def pool_races(folders: Sequence[str], *, console: Console, out: Path | None = None) -> PooledResult:
    """Rank the racers of all races together and correlate predictors over all their autoencoders.

    out: folder for pooled.json and a page, None to print only. Raises RecipeError if the judge (metric, extractor, number of
    images), images, transformer steps, tokens or seeds differ, because distances are then not comparable. A racer with the same
    weights of autoencoder and transformer in two races counts once.
    """
    results = [read_race(Path(folder)) for folder in folders]
    for folder, result in zip(folders[1:], results[1:], strict=True):
        _check_alike(folders[0], results[0], folder, result)
    with parsing(Path(folders[0]) / "race.json", hint="Run the race again."):
        pooled = _pooled(folders, results)
    if len(pooled.points) < 3:
        raise RecipeError(f"{len(pooled.points)} autoencoders are too few for a rank correlation; at least three are needed.")
    show(pooled, console)
    if out is not None:
        pooled.write(out / "pooled.json")
        for path in (out / "pooled.json", *write_pooled_report(pooled, out)):
            console.print(str(path))
    return pooled


def _pooled(folders: Sequence[str], results: Sequence[RaceResult]) -> PooledResult:
    trials: list[TrialScores] = []
    points: dict[str, Point] = {}
    racers: dict[tuple[str, ...], str] = {}
    for folder, result in zip(folders, results, strict=True):
        for name in result.racers:
            own = result.trials_of(name)
            weights = tuple(
                digest for trial in own for digest in (trial.cache_key.autoencoder, trial.cache_key.transformer)
            )
            if not own or weights in racers:
                continue
            called = racers[weights] = name if name not in racers.values() else f"{Path(folder).name}/{name}"
            trials += [trial.model_copy(update={"racer": called}) for trial in own]
            point = result.points.get(name)
            if point and point.digests not in [known.digests for known in points.values()]:
                points[called] = point
    first = results[0]
    names = tuple(racers.values())
    return PooledResult(
        schema_=SCHEMA,
        races=tuple(folders),
        racers=names,
        seeds=first.seeds,
        step=first.step,
        steps=first.steps,
        tokens=first.tokens,
        metric=first.metric,
        judge=first.judge,
        images=first.images,
        trials=tuple(trials),
        broken={},
        rankings={features: rankings(names, trials, features) for features in first.rankings},
        points=points,
        predictor_correlations=predictor_correlations(points, trials),
        partial=tuple(dict.fromkeys(sentence for result in results for sentence in result.partial)),
    )


def _check_alike(first: str, ours: RaceResult, other: str, theirs: RaceResult) -> None:
    if _judge(ours) != _judge(theirs):
        raise RecipeError(
            f"{first} and {other} cannot be pooled: one was judged by {ours.judged_by}, the other by {theirs.judged_by}.",
            hint=f"Judge one of them again: smtool race {other} --set judge.metric={ours.metric} --out FOLDER",
        )
    pairs = zip(_compared(ours), _compared(theirs), strict=True)
    if unlike := [f"{key}: {a} and {b}" for (key, a), (_, b) in pairs if a != b]:
        raise RecipeError("\n  ".join([f"{first} and {other} cannot be pooled: their distances are not comparable:", *unlike]))


def _judge(result: RaceResult) -> tuple[object, ...]:
    """What ranks: metric, extractor with its weights, number of images."""
    first = result.trials[0]
    return result.metric, result.judge, first.distances[result.judge].extractor_sha256, first.cache_key.num_images


def _compared(result: RaceResult) -> list[tuple[str, object]]:
    """(name, value) of everything that must be equal for distances to be comparable."""
    scored = result.trials[0].cache_key
    return [
        ("step", result.step),
        ("steps", result.steps),
        ("tokens", result.tokens),
        ("seeds", list(result.seeds)),
        ("images", scored.images),
        ("sampler", scored.sampler),
        ("features", list(scored.features)),
    ]
