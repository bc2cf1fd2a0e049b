"""race.json, "smtool.race/2": scores of each trial, rankings, correlations of predictors, costs.

docs/race.schema.json is the JSON Schema of `RaceResult`. Adding a key keeps the version; removing a key or changing its meaning
raises it. The file holds numbers with all digits; only tables, figures and sentences round them.
"""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

from smtool.commands.race.trial import Part, TrialScores
from smtool.errors import CheckpointError
from smtool.image_shape import ImageSize
from smtool.recipe.race import Metric

SCHEMA: Literal["smtool.race/2"] = "smtool.race/2"


class Images(Part):
    """The images of the race. validation: another source, or "" for the validation split of `train`."""

    train: str
    validation: str
    image_size: ImageSize
    image_channels: int = 3


class Failure(Part):
    """Error of a racer, an autoencoder's run or a trial. kind: class of the error."""

    kind: str
    message: str


class Spent(NamedTuple):
    """Time of a stage in seconds: wall time, and time of all cores together."""

    seconds: float
    core_seconds: float


class SeedMean(Part):
    """Mean over seeds with the half-width of its 95 % interval (Student's t), None for a single seed."""

    value: float
    half_width: float | None
    seeds: int


class RacerMean(SeedMean):
    """Mean and place of a racer. place: the places that significant differences allow, such as 1 or 2-4."""

    place: str


class PairDifference(Part):
    """Two racers compared seed by seed. difference: mean of worse - better; told: whether its interval excludes 0."""

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
    """Rankings by the distances of one extractor."""

    generation: Ranking
    reconstruction: Ranking
    gap: Ranking


class MeanDistances(Part):
    """Mean distances over seeds."""

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
    """Spearman's rank correlation over autoencoders; None if all values of one side are equal.

    low, high: its 95 % interval, None for few points; chance: two-sided p-value by permutation; points: number of autoencoders.
    """

    value: float | None
    low: float | None
    high: float | None
    chance: float
    points: int


class PredictorCorrelation(Part):
    """Correlations of one predictor with generation distance and gap; published: with the FID of published autoencoders."""

    title: str
    generation: Correlation
    gap: Correlation
    published: Correlation | None


class SeedsAgreement(Part):
    """Mean rank correlation between one seed and the mean of the others; None if it is undefined."""

    generation: float | None
    gap: float | None


class PredictorCorrelations(Part):
    """Correlations of all predictors with the distances of one extractor."""

    predictors: dict[str, PredictorCorrelation]
    seeds_agree: SeedsAgreement


class Result(Part):
    """Fields that one race and several pooled races share.

    trials: those that did not fail; metric, judge: the distance and the extractor that decide the ranking; rankings,
    predictor_correlations: by extractor, the judge first, all with this distance; points: by racer, but only the first of racers
    that share an autoencoder; partial: warnings about extractors that a racer learned from.
    """

    schema_: Literal["smtool.race/2"]
    racers: tuple[str, ...]
    seeds: tuple[int, ...]
    step: int
    steps: int
    tokens: int
    metric: Metric = "fd"
    judge: str
    images: Images
    trials: tuple[TrialScores, ...]
    broken: dict[str, Failure]
    rankings: dict[str, Rankings]
    points: dict[str, Point]
    predictor_correlations: dict[str, PredictorCorrelations]
    partial: tuple[str, ...] = ()

    @property
    def judged_by(self) -> str:
        """The judge in words, such as `fd_random of 2,000 images`, with the weights of its extractor; needs a trial."""
        first = self.trials[0]
        found = first.distances[self.judge]
        return f"{found.name} of {first.cache_key.num_images:,} images (weights {found.extractor_sha256[:8]})"

    def trials_of(self, racer: str) -> list[TrialScores]:
        return [trial for trial in self.trials if trial.racer == racer]

    def by_generation(self, features: str | None = None) -> list[str]:
        """Racers, by increasing mean generation distance. features: the extractor; default: the judge."""
        means = self.rankings[features or self.judge].generation.racers
        return sorted(means, key=lambda name: means[name].value)


class RaceResult(Result):
    """race.json. costs: key of an autoencoder's run or of a trial -> stage -> seconds; autoencoders: trial -> key of its run."""

    smtool: str
    costs: dict[str, dict[str, Spent]]
    autoencoders: dict[str, str]


class PooledResult(Result):
    """pooled.json. races: their folders."""

    races: tuple[str, ...]


def read_race(folder: Path) -> RaceResult:
    """Read folder/race.json. Raises CheckpointError if it has another version, is damaged, or has no trials."""
    path = folder / "race.json"
    text = path.read_bytes()
    try:
        found = json.loads(text).get("schema")
        result = RaceResult.model_validate_json(text) if found == SCHEMA else None
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {str(error).splitlines()[0]}.", hint="Run the race again.") from error
    if result is None or not result.trials:
        raise CheckpointError(f"{path} holds no finished race of version {SCHEMA} (found: {found}).", hint="Run the race again.")
    return result


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (draft 2020-12)."""
    described = RaceResult.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **described, "title": "smtool race"}
