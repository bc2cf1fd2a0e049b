"""The typed content of spectrum.json, version "smtool.spectrum/2".

docs/spectrum.schema.json is its JSON Schema. Adding a key keeps the version; removing a key or changing its meaning raises it. A
part that could not be measured is {"reason": "..."}.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer

from smtool.config import Config
from smtool.diffusability.inputs.subjects import Size
from smtool.diffusability.sections import drift as drift_section
from smtool.diffusability.sections import flattening, health, noise_crossing, reference, transfer
from smtool.diffusability.sections.direction import Direction
from smtool.diffusability.sections.drift import Drift
from smtool.diffusability.sections.health import Health
from smtool.diffusability.sections.low_pass import LowPass
from smtool.diffusability.sections.noise_crossing import NoiseCrossing
from smtool.diffusability.sections.parts import Finding, Reason
from smtool.diffusability.sections.physical import PhysicalReading, Powers
from smtool.diffusability.sections.reference import Published, ReferenceImages, ReferenceReading
from smtool.diffusability.sections.transfer import Transfer
from smtool.image_shape import ImageSize
from smtool.networks.posterior import LatentStats

SCHEMA: Literal["smtool.spectrum/2"] = "smtool.spectrum/2"
SCOPE = (
    "This report diagnoses; it does not rank. A spectrum alone does not show which of two unrelated autoencoders a diffusion "
    "model learns better: over 22 published autoencoders, the rank correlation with the FID of one transformer trained on each "
    "is -0.01 for a purely spectral score (energy above 0.05 cycles per pixel) and 0.84 for iFID, which decodes interpolated "
    "latents. To rank autoencoders, train the same small transformer on each with smtool race."
)


Seconds = Annotated[float, PlainSerializer(lambda seconds: round(seconds, 3), when_used="json")]


class Origin(Config):
    """The source that the images were prepared from."""

    name: str
    kind: str


class Data(Config):
    """The measured images. unit: of the intervals, a photograph if images are crops of photographs; units: their number;
    compression_before, upscaled: history of the images before they were stored."""

    source: str
    split: Literal["validation", "training"]
    digest: str
    images: int
    image_size: ImageSize
    unit: Literal["image", "photograph"]
    units: int
    origin: Origin
    crop: str
    crop_rule: str
    stored_as: str
    compression_before: str
    upscaled: int

    @property
    def place(self) -> str:
        """Name of the data folder, split, and image size."""
        return f"({self.source.rstrip('/').split('/')[-1]}, {self.split} split), {self.image_size.words}"

    @property
    def note(self) -> str:
        """The images that were measured, and the units of the intervals."""
        images = f"{self.images} images"
        if self.unit == "photograph":
            images = f"{self.images} crops of {self.units} photographs"
        return f"{images} {self.place}; 95% intervals, jackknife over {self.unit}s"


class Passport(Config):
    """Everything needed to interpret or repeat the numbers.

    delta: of the target; reference: label of the autoencoder whose SNRs the time shifts match; downsample_pad: padding of all
    encoders, where it was requested; snr_threshold: of the highest frequency above the noise; posterior: readings by label;
    stopped: why the pass ended; images: number of images by section, the first ones of the data; tile: side of the tiles that
    were coded; time_limit: in seconds; full_seconds: estimated time of the full protocol; cut: what was left out of it to keep
    the limit.
    """

    data: Data
    delta: float
    reference: str | None
    downsample_pad: str | None = None
    snr_threshold: float = 1.0
    estimators: list[str]
    posterior: dict[str, list[str]]
    interval: str
    stopped: str
    images: dict[str, int]
    device: str
    torch: str
    tile: int | None = None
    time_limit: float | None = None
    full_seconds: float | None = None
    cut: tuple[str, ...] = ()


class Passes(Config):
    """Number of images passed through a network, and the seconds this took."""

    images: int
    seconds: Seconds


class Codings(Config):
    encode: Passes
    decode: Passes


class Cost(Config):
    """Run time and memory: the only part that differs between two runs of the same command.

    seconds: by section; passes: network passes by autoencoder; pass_seconds: their sum; peak_memory_mb: in MB.
    """

    seconds: dict[str, Seconds]
    passes: dict[str, Codings]
    pass_seconds: Seconds
    report_seconds: Seconds
    peak_memory_mb: dict[str, int]


class Recolouring(Config):
    """The filter of a transformer's spectral statistics, which follows mean and std.

    flatten: its law, a delta or "white"; size: of the latents; gains: factor of each channel's coefficients in every radial band.
    """

    flatten: float | Literal["white"]
    size: Size
    gains: list[list[float]]


class Normalization(Config):
    """Statistics that normalize raw latents: one mean and std per channel, or one for all.

    source: where they come from; count: images they were measured on; data: digest of these images.
    """

    source: str
    kind: Literal["channel", "scalar", "spectral"]
    mean: list[float]
    std: list[float]
    count: int
    data: str
    recolouring: Recolouring | None = None

    @classmethod
    def of(cls, source: str, stats: LatentStats) -> "Normalization":
        facts = {key: value for key, value in stats.to_metadata().items() if key != "residual"}
        return cls.model_validate({"source": source, **facts})


class Measured(Config):
    """Everything measured of one autoencoder.

    physical, reference: empty where the estimator was not requested. drift: None for the reference itself, and in older files.
    """

    label: str
    path: str
    digest: str
    architecture: str
    deterministic: bool
    can_decode: bool
    downsample: int
    latent_channels: int
    latent_size: Size
    normalization: Normalization
    physical: list[PhysicalReading]
    reference: list[ReferenceReading]
    transfer: Transfer | Reason
    low_pass: LowPass | Reason
    lens: NoiseCrossing | Reason
    direction: Direction
    health: Health
    drift: Drift | Reason | None = None


class Autoencoder(Measured):
    """One autoencoder: the measurements and the verdict."""

    verdict: list[Finding]


class Images(Config):
    """Spectra of the images themselves, for the estimators that were requested."""

    physical: Powers | None = None
    reference: list[ReferenceImages] | None = None


class Report(Config):
    """The content of spectrum.json. Numbers are rounded only when written; `model_validate_json` reads a file back."""

    schema_: Literal["smtool.spectrum/2"] = Field(alias="schema")
    smtool: str
    passport: Passport
    cost: Cost
    images: Images
    autoencoders: list[Autoencoder]
    published: list[Published]

    def to_json(self) -> dict[str, Any]:
        """The content of spectrum.json: rows rounded to six significant digits, without the keys of unmeasured parts."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def verdict(one: Measured) -> list[Finding]:
    """The findings about one autoencoder, most important first. Unmeasured parts are not mentioned."""
    return [
        *flattening.findings(one.physical),
        *reference.findings(one.reference),
        *transfer.findings(one.transfer, one.low_pass, can_decode=one.can_decode, cells=min(one.latent_size)),
        *noise_crossing.findings(one.lens),
        *health.findings(one.health),
        *drift_section.findings(one.drift),
    ]


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (draft 2020-12)."""
    described = Report.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **described, "title": "smtool spectrum"}
