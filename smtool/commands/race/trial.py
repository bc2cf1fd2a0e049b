"""Files in a race's folder: cells/KEY.json with the scores of a trial, predictors/KEY.json with those of an autoencoder."""

from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, ValidationError

from smtool.config import Config
from smtool.image_shape import ImageSize
from smtool.inference.sampling import stored_sampler
from smtool.recipe.race import Metric
from smtool.storage import write_json

_JSON_NAMES = {"schema_": "schema", "trials": "cells", "cache_key": "facts"} | {
    "rankings": "standings", "predictor_correlations": "forecasts"
}  # fmt: skip
"""Attribute -> its name in the files, where they differ."""
Kept = TypeVar("Kept", bound="Part")
METRICS: tuple[Metric, ...] = get_args(Metric)


class Part(Config):
    """A part of a race's files."""

    model_config = ConfigDict(alias_generator=lambda name: _JSON_NAMES.get(name, name), populate_by_name=True)

    def json_value(self, **options: Any) -> dict[str, Any]:
        """The JSON to write: every field that was set, with all digits."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, **options)

    def write(self, path: Path) -> None:
        write_json(path, self.json_value())


def read_kept(path: Path, kind: type[Kept]) -> Kept | None:
    """Read a file of an earlier command; None if it does not exist or has another format."""
    if not path.is_file():
        return None
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError:
        return None


def scores_path(folder: Path, trial: str) -> Path:
    """File with the scores of a trial; its samples are in the .png of the same name. trial: its key."""
    return folder / "cells" / f"{trial}.json"


def predictors_path(folder: Path, autoencoder: str) -> Path:
    """File with the predictors of an autoencoder. autoencoder: key of its run."""
    return folder / "predictors" / f"{autoencoder}.json"


class Estimate(Part):
    """A value with the half-width of its 95 % interval over images, None if it was not measured."""

    value: float
    half_width: float | None


class Distance(Part):
    """A distance of samples (generation) and of reconstructions to the same training images. name: such as fd_random."""

    name: str
    generation: Estimate
    reconstruction: Estimate


class Distances(Part):
    """Distances of samples (generation) and of reconstructions to the same training images, on one extractor.

    metric, name: of the distance that ranks; kernel_name: of the kernel distance; gap: generation - reconstruction; others: the
    distances by the other metrics, {} in files of versions that computed none.
    """

    metric: Metric = "fd"
    name: str
    extractor_sha256: str
    dim: int
    generation: Estimate
    kernel_generation: float
    reconstruction: Estimate
    kernel_reconstruction: float
    kernel_name: str
    gap: float
    others: dict[Metric, Distance] = Field({})

    def by(self, metric: Metric) -> Distance | None:
        """The distance by a metric; None if it was not computed."""
        if metric == self.metric:
            return Distance(name=self.name, generation=self.generation, reconstruction=self.reconstruction)
        if metric == "kd" and metric not in self.others:      # earlier versions measured it without an interval
            generation, reconstruction = (
                Estimate(value=value, half_width=None) for value in (self.kernel_generation, self.kernel_reconstruction)
            )
            return Distance(name=self.kernel_name, generation=generation, reconstruction=reconstruction)
        return self.others.get(metric)

    def judged_by(self, metric: Metric) -> "Distances | None":
        """The same distances with another one first; None if it was not computed."""
        found = {name: distance for name in METRICS if (distance := self.by(name)) is not None}
        if (first := found.pop(metric, None)) is None:
            return None
        changed = {"metric": metric, "name": first.name, "generation": first.generation, "reconstruction": first.reconstruction}
        gap = first.generation.value - first.reconstruction.value
        return self.model_copy(update={**changed, "gap": gap, "others": found})


class Losses(Part):
    """Training losses at the end, in total (diffusion) and by band, with the Gaussian start and floor of each band.

    learnt: position of the loss between start (0) and floor (1); cells: number of coefficients of a channel in the band.
    """

    diffusion: float
    bands: tuple[float, ...]
    start: tuple[float, ...]
    floor: tuple[float, ...]
    learnt: tuple[float, ...]
    cells: tuple[int, ...]


class Spectra(Part):
    """Mean power of each set of images (PHYSICAL). frequency: in cycles per image side."""

    frequency: tuple[float, ...]
    images: tuple[float, ...]
    reconstructions: tuple[float, ...]
    samples: tuple[float, ...]


class Parameters(Part):
    """Number of parameters of each network."""

    autoencoder: int
    transformer: int


class TrialKey(Part):
    """Everything a trial's scores depend on. transformer, autoencoder, images: digests; sampler: table of the recipe; metric,
    features, num_images: of the judge."""

    smtool: str
    transformer: str
    autoencoder: str
    step: int
    sampler: Annotated[dict[str, JsonValue], AfterValidator(stored_sampler)]
    images: str
    validation: str
    metric: Metric = "fd"
    features: tuple[str, ...]
    num_images: int
    seed: int


class TrialScores(Part):
    """Scores of the transformer of one racer and seed, and of its autoencoder's reconstructions.

    autoencoder: key of its run; num_images: number of samples, and of reconstructions; distances: by extractor; psnr: in dB.
    """

    cache_key: TrialKey
    racer: str
    seed: int
    autoencoder: str
    step: int
    num_images: int
    num_reference: int
    distances: dict[str, Distances]
    psnr: Estimate
    losses: Losses
    spectra: Spectra
    parameters: Parameters


class Measured(Part):
    """A predictor's value, or the reason why there is none. by_number: number of latents -> value; chance: accuracy of always
    naming the most frequent class."""

    value: float | None = None
    half_width: float | None = None
    by_number: dict[str, float] | None = None
    chance: float | None = None
    reason: str | None = None


class Residual(Part):
    """Power of latents over power of the target in each ring; None for a ring without power."""

    cycles_per_side: tuple[float | None, ...]
    residual_db: tuple[float | None, ...]


class PredictorsKey(Part):
    """Everything predictors depend on. autoencoder: digest; images: training source, validation source, image size; measures:
    number of the set of predictors."""

    smtool: str
    autoencoder: str
    features: tuple[str, ...]
    images: tuple[str, str, ImageSize]
    measures: int = 1


class Predictors(Part):
    """Measures of an autoencoder that need no transformer on its latents. values: predictor -> value."""

    cache_key: PredictorsKey
    autoencoder: str
    num_latents: int
    num_queries: int
    values: dict[str, Measured]
    spectrum: Residual | None
