"""race.json, "smtool.race/2": what each trial scored, what seeds tell apart, how predictors rank, what the race cost.

docs/race.schema.json is `RaceResult`, as JSON Schema. A key that is added keeps the version; one that goes, or means something
else, raises it. Numbers are written as they were measured: only tables, figures and sentences round.
"""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from smtool.commands.race.trial import Part, TrialScores
from smtool.errors import CheckpointError

SCHEMA: Literal["smtool.race/2"] = "smtool.race/2"


class Images(Part):
    """The images that all race on; validation: a source of its own, or "" for the validation split of `train`."""

    train: str
    validation: str
    image_size: int


class Failure(Part):
    """Why a racer, an autoencoder's run or a trial broke. kind: the error's class."""

    kind: str
    message: str


class Spent(NamedTuple):
    """What a stage cost: wall time, and time of all cores together."""

    seconds: float
    core_seconds: float


class SeedMean(Part):
    """Mean over seeds with the half width of its 95 % interval (Student's t), None for a single seed."""

    value: float
    half_width: float | None
    seeds: int


class RacerMean(SeedMean):
    """place: the places that told differences leave, such as 1 or 2-4."""

    place: str


class PairDifference(Part):
    """Two racers compared seed by seed. difference: mean of worse - better; told: whether its interval leaves 0 out."""

    better: str
    worse: str
    difference: float
    half_width: float | None
    wins: int
    seeds: int
    told: bool
    sentence: str


class Ranking(Part):
    """All racers by one distance, and all pairs of them."""

    racers: dict[str, RacerMean]
    pairs: tuple[PairDifference, ...]


class Rankings(Part):
    """By the distances of one extractor."""

    generation: Ranking
    reconstruction: Ranking
    gap: Ranking


class MeanDistances(Part):
    """Means over seeds."""

    generation: float
    reconstruction: float
    gap: float


class Point(Part):
    """One autoencoder: its predictors and the distances (by extractor) of its first racer, and the digests of its weights."""

    digests: tuple[str, ...]
    num_latents: int
    predictors: dict[str, float]
    distances: dict[str, MeanDistances]


class Correlation(Part):
    """Spearman's rank correlation over autoencoders, None where one side is all equal.

    low, high: its 95 % interval, None for few points; chance: fraction of random orders at least as strong.
    """

    value: float | None
    low: float | None
    high: float | None
    chance: float
    points: int


class PredictorCorrelation(Part):
    """Of one predictor with the generation distance and with the gap; published: the same over published autoencoders."""

    title: str
    generation: Correlation
    gap: Correlation
    published: Correlation | None


class SeedsAgreement(Part):
    """How well one seed ranks the racers as the mean of the others does; None where it cannot be known."""

    generation: float | None
    gap: float | None


class PredictorCorrelations(Part):
    """Of all predictors with the distances of one extractor."""

    predictors: dict[str, PredictorCorrelation]
    seeds_agree: SeedsAgreement


class Result(Part):
    """What one race and several pooled ones have in common: all that ranking, tables and most figures need.

    trials: those that did not break; judge: the extractor that ranks; rankings, predictor_correlations: by extractor, the judge
    first; points: by racer, of racers that share an autoencoder only the first.
    """

    schema_: Literal["smtool.race/2"]
    racers: tuple[str, ...]
    seeds: tuple[int, ...]
    step: int
    steps: int
    tokens: int
    judge: str
    images: Images
    trials: tuple[TrialScores, ...]
    broken: dict[str, Failure]
    rankings: dict[str, Rankings]
    points: dict[str, Point]
    predictor_correlations: dict[str, PredictorCorrelations]

    def trials_of(self, racer: str) -> list[TrialScores]:
        return [trial for trial in self.trials if trial.racer == racer]

    def by_generation(self, features: str | None = None) -> list[str]:
        """Racers, the best mean generation distance first. features: the extractor; default the judge."""
        means = self.rankings[features or self.judge].generation.racers
        return sorted(means, key=lambda name: means[name].value)


class RaceResult(Result):
    """race.json. costs: key of an autoencoder's run or a trial -> stage -> seconds; autoencoders: trial -> its run."""

    smtool: str
    costs: dict[str, dict[str, Spent]]
    autoencoders: dict[str, str]


class PooledResult(Result):
    """pooled.json. races: their folders."""

    races: tuple[str, ...]


def read_race(folder: Path) -> RaceResult:
    """Read folder/race.json. Raises CheckpointError if it is of another version, damaged, or without a single trial."""
    path = folder / "race.json"
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text).get("schema")
        result = RaceResult.model_validate_json(text) if found == SCHEMA else None
    except (json.JSONDecodeError, AttributeError, ValidationError) as error:
        raise CheckpointError(f"{path} is damaged: {str(error).splitlines()[0]}.", hint="Run the race again.") from error
    if result is None or not result.trials:
        raise CheckpointError(f"{path} holds no finished race of this version ({found}).", hint="Run it again.")
    return result


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (draft 2020-12)."""
    described = RaceResult.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **described, "title": "smtool race"}
