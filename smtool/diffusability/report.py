"""spectrum.json, "smtool.spectrum/2": what a reader of the file may rely on.

docs/spectrum.schema.json is this, as JSON Schema. A key that is added keeps the version; one that goes, or means something else,
raises it. A part that could not be measured is {"reason": "..."}.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer

from smtool.config import Config
from smtool.diffusability.inputs.subjects import Size
from smtool.diffusability.sections import flattening, health, noise_crossing, reference, transfer
from smtool.diffusability.sections.direction import Direction
from smtool.diffusability.sections.health import Health
from smtool.diffusability.sections.low_pass import LowPass
from smtool.diffusability.sections.noise_crossing import NoiseCrossing
from smtool.diffusability.sections.parts import Finding, Reason
from smtool.diffusability.sections.physical import PhysicalReading, Powers
from smtool.diffusability.sections.reference import Published, ReferenceImages, ReferenceReading
from smtool.diffusability.sections.transfer import Transfer

SCHEMA: Literal["smtool.spectrum/2"] = "smtool.spectrum/2"
SCOPE = (
    "This report diagnoses; it does not rank. No spectrum alone tells which of two unrelated autoencoders a diffusion model "
    "will learn better: over 22 published autoencoders, the rank correlation with the FID of what one transformer generates is "
    "-0.01 for a purely spectral score (energy above 0.05 cycles per pixel), and 0.84 for iFID, which decodes interpolated "
    "latents. For ranking, train on them, with smtool race."
)


Seconds = Annotated[float, PlainSerializer(lambda seconds: round(seconds, 3), when_used="json")]


class Origin(Config):
    name: str
    kind: str


class Data(Config):
    source: str
    split: Literal["validation", "training"]
    digest: str
    images: int
    image_size: int
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
        """The last name of the data, which part of it, and the size of its images."""
        return f"({self.source.rstrip('/').split('/')[-1]}, {self.split} split), {self.image_size} px"

    @property
    def note(self) -> str:
        """What was measured on, and what the intervals resample."""
        images = f"{self.images} images"
        if self.unit == "photograph":
            images = f"{self.images} crops of {self.units} photographs"
        return f"{images} {self.place}; 95% intervals, jackknife over {self.unit}s"


class Passport(Config):
    """What must be known to read the numbers or to repeat them. images: how many every section used, the first of the data;
    reference: label of the latent that time shifts match; downsample_pad: of all encoders, where it was asked for."""

    data: Data
    delta: float
    reference: str | None
    downsample_pad: str | None = None
    estimators: list[str]
    posterior: dict[str, list[str]]
    interval: str
    stopped: str
    images: dict[str, int]
    device: str
    torch: str


class Passes(Config):
    images: int
    seconds: Seconds


class Codings(Config):
    encode: Passes
    decode: Passes


class Cost(Config):
    """Seconds by section; of the network passes alone; memory in MB. The only part that differs between equal commands."""

    seconds: dict[str, Seconds]
    passes: dict[str, Codings]
    pass_seconds: Seconds
    report_seconds: Seconds
    peak_memory_mb: dict[str, int]


class Normalization(Config):
    """What divided raw latents: per channel, or one number for all."""

    source: str
    kind: Literal["channel", "scalar"]
    mean: list[float]
    std: list[float]
    count: int
    data: str


class Measured(Config):
    """One autoencoder. physical, reference: no readings where the estimator was not asked for."""

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


class Autoencoder(Measured):
    """One autoencoder: what was measured of it, and the verdict."""

    verdict: list[Finding]


class Images(Config):
    """The images themselves, as far as the estimators were asked for."""

    physical: Powers | None = None
    reference: list[ReferenceImages] | None = None


class Report(Config):
    """spectrum.json. Numbers are rounded when they are written only; a file reads back through `model_validate_json`."""

    schema_: Literal["smtool.spectrum/2"] = Field(alias="schema")
    smtool: str
    passport: Passport
    cost: Cost
    images: Images
    autoencoders: list[Autoencoder]
    published: list[Published]

    def to_json(self) -> dict[str, Any]:
        """As spectrum.json has it: rows to six significant digits, without the keys of what was not measured."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def verdict(one: Measured) -> list[Finding]:
    """Sentences about it, the most important first. They diagnose and do not rank; what was not measured is not mentioned."""
    return [
        *flattening.findings(one.physical),
        *reference.findings(one.reference),
        *transfer.findings(one.transfer, one.low_pass, can_decode=one.can_decode),
        *noise_crossing.findings(one.lens),
        *health.findings(one.health),
    ]


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (draft 2020-12)."""
    described = Report.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **described, "title": "smtool spectrum"}
