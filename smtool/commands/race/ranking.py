"""Ranking of the racers: means over seeds, significant differences; and assembly of race.json."""

from collections.abc import Callable, Mapping, Sequence

from smtool import __version__
from smtool.commands.race.costs import Costs
from smtool.commands.race.plan import RacePlan
from smtool.commands.race.predictor_correlations import points_of, predictor_correlations
from smtool.commands.race.result import SCHEMA, Failure, PairDifference, RaceResult, RacerMean, Ranking, Rankings, SeedMean
from smtool.commands.race.trial import Distances, TrialScores, scores_path
from smtool.errors import SmtoolError
from smtool.metrics.ranking import Pair, paired, places, seed_interval
from smtool.recipe.race import Metric
from smtool.spectrum.jackknife import student_t_quantile


def race_result(
    plan: RacePlan, step: int, broken: Mapping[str, SmtoolError], costs: Costs, partial: Sequence[str] = ()
) -> RaceResult:
    """The contents of race.json. Failed trials are left out; `broken` has their errors; partial: warnings about the judge."""
    paths = {trial.key: scores_path(plan.folder, trial.key) for trial in plan.trials if trial.key not in broken}
    trials = [TrialScores.model_validate_json(path.read_bytes()) for path in paths.values() if path.is_file()]
    points = points_of(plan.racers, trials, plan.judge.features, plan.folder)
    return RaceResult(
        schema_=SCHEMA,
        smtool=__version__,
        racers=plan.racers,
        seeds=plan.seeds,
        step=step,
        steps=plan.steps,
        tokens=plan.tokens,
        metric=plan.judge.metric,
        judge=plan.judge.features[0],
        images=plan.images,
        trials=tuple(trials),
        broken={key: Failure(kind=type(error).__name__, message=error.message) for key, error in broken.items()},
        costs=costs.spent,
        autoencoders={trial.key: trial.autoencoder.key for trial in plan.trials},
        rankings={features: rankings(plan.racers, trials, features) for features in plan.judge.features},
        points=points,
        predictor_correlations=predictor_correlations(points, trials),
        partial=tuple(partial),
    )


def rankings(racers: Sequence[str], trials: Sequence[TrialScores], features: str) -> Rankings:
    """Rankings by each distance of one extractor."""

    def ranking(score: Callable[[Distances], float]) -> Ranking:
        scores: dict[str, dict[int, float]] = {}
        for trial in trials:
            scores.setdefault(trial.racer, {})[trial.seed] = score(trial.distances[features])
        return _ranking(racers, scores)

    return Rankings(
        generation=ranking(lambda found: found.generation.value),
        reconstruction=ranking(lambda found: found.reconstruction.value),
        gap=ranking(lambda found: found.gap),
    )


def ranking_by(racers: Sequence[str], trials: Sequence[TrialScores], features: str, metric: Metric) -> Ranking | None:
    """Ranking by the generation distance of any metric; None if a trial does not have it."""
    scores: dict[str, dict[int, float]] = {}
    for trial in trials:
        found = trial.distances[features].by(metric)
        if found is None:
            return None
        scores.setdefault(trial.racer, {})[trial.seed] = found.generation.value
    return _ranking(racers, scores)


def mean_over_seeds(by_seed: Mapping[int, float]) -> SeedMean:
    """Mean with its 95 % interval. by_seed: seed -> score."""
    value, half_width = seed_interval(by_seed, quantile=_quantile)
    return SeedMean(value=value, half_width=_finite(half_width), seeds=len(by_seed))


def _ranking(racers: Sequence[str], scores: Mapping[str, Mapping[int, float]]) -> Ranking:
    pairs = paired(scores, quantile=_quantile)
    place = places([name for name in racers if name in scores], pairs)
    means = {name: mean_over_seeds(by_seed) for name, by_seed in scores.items()}
    return Ranking(
        racers={name: RacerMean(**mean.model_dump(), place=str(place[name])) for name, mean in means.items()},
        pairs=tuple(_difference(pair) for pair in pairs),
    )


def _difference(pair: Pair) -> PairDifference:
    return PairDifference(
        better=pair.better,
        worse=pair.worse,
        difference=pair.difference,
        half_width=_finite(pair.half_width),
        wins=pair.wins,
        seeds=pair.seeds,
        told=pair.is_told,
        sentence=pair.sentence(),
    )


def _quantile(degrees: int) -> float:
    """Quantile of Student's t for 95 % intervals."""
    return student_t_quantile(0.975, degrees)


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None
