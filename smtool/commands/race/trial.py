"""Files in a race's folder: cells/KEY.json, what one trial scored; predictors/KEY.json, what its autoencoder shows alone."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, JsonValue, ValidationError

from smtool.config import Config
from smtool.storage import write_json

_JSON_NAMES = {"schema_": "schema", "trials": "cells", "cache_key": "facts"} | {
    "rankings": "standings", "predictor_correlations": "forecasts"
}  # fmt: skip
"""Attributes that the files call otherwise."""
Kept = TypeVar("Kept", bound="Part")


class Part(Config):
    """A part of a race's files; `json` is how it is written."""

    model_config = ConfigDict(alias_generator=lambda name: _JSON_NAMES.get(name, name), populate_by_name=True)

    def json_value(self, **options: Any) -> dict[str, Any]:
        """What is written: every field that was given, numbers as they are."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, **options)

    def write(self, path: Path) -> None:
        write_json(path, self.json_value())


def read_kept(path: Path, kind: type[Kept]) -> Kept | None:
    """What an earlier command left in a file; None if there is none, or one that this version does not write."""
    if not path.is_file():
        return None
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError:
        return None


def scores_path(folder: Path, trial: str) -> Path:
    """Where the scores of a trial are kept; its samples lie beside them, as .png. trial: its key."""
    return folder / "cells" / f"{trial}.json"


def predictors_path(folder: Path, autoencoder: str) -> Path:
    """Where the predictors of an autoencoder are kept. autoencoder: the key of its run."""
    return folder / "predictors" / f"{autoencoder}.json"


class Estimate(Part):
    """A value with the half width of its 95 % interval over images."""

    value: float
    half_width: float


class Distances(Part):
    """Of samples (generation) and of reconstructions to the same training images, by one extractor.

    name: of the Frechet distance; kernel_name: of the kernel distance; gap: generation - reconstruction.
    """

    name: str
    extractor_sha256: str
    dim: int
    generation: Estimate
    kernel_generation: float
    reconstruction: Estimate
    kernel_reconstruction: float
    kernel_name: str
    gap: float


class Losses(Part):
    """Training losses at the end, all (diffusion) and by band, with the Gaussian start and floor of each band.

    learnt: fraction of the way from start to floor; cells: coefficients of a channel in the band.
    """

    diffusion: float
    bands: tuple[float, ...]
    start: tuple[float, ...]
    floor: tuple[float, ...]
    learnt: tuple[float, ...]
    cells: tuple[int, ...]


class Spectra(Part):
    """Mean power of each set of pictures (PHYSICAL). frequency: cycles per image side."""

    frequency: tuple[float, ...]
    images: tuple[float, ...]
    reconstructions: tuple[float, ...]
    samples: tuple[float, ...]


class Parameters(Part):
    """How many numbers each network has."""

    autoencoder: int
    transformer: int


class TrialKey(Part):
    """All that a trial's scores depend on. transformer, autoencoder, images: digests; sampler: as the recipe has it."""

    smtool: str
    transformer: str
    autoencoder: str
    step: int
    sampler: dict[str, JsonValue]
    images: str
    validation: str
    features: tuple[str, ...]
    num_images: int
    seed: int


class TrialScores(Part):
    """What the transformer of one racer and seed came to, beside what the autoencoder alone does to images.

    autoencoder: the key of its run; num_images: samples, and reconstructions; distances: by extractor; psnr: in dB.
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
    """A predictor's value, or the reason why there is none. by_number: the value at fewer latents."""

    value: float | None = None
    half_width: float | None = None
    by_number: dict[str, float] | None = None
    reason: str | None = None


class Residual(Part):
    """The latents' power over the target's, ring by ring; None where a ring has none."""

    cycles_per_side: tuple[float | None, ...]
    residual_db: tuple[float | None, ...]


class PredictorsKey(Part):
    """All that predictors depend on. autoencoder: digest; images: training, validation and their size."""

    smtool: str
    autoencoder: str
    features: tuple[str, ...]
    images: tuple[str, str, int]


class Predictors(Part):
    """What can be known of an autoencoder before any transformer is trained on its latents. values: by predictor."""

    cache_key: PredictorsKey
    autoencoder: str
    num_latents: int
    num_queries: int
    values: dict[str, Measured]
    spectrum: Residual | None
