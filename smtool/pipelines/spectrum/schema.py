"""The shape of spectrum.json, "smtool.spectrum/2": what a reader of the file may rely on.

docs/spectrum.schema.json is this, as JSON Schema. A key that is added keeps the version; one that goes, or means something else,
raises it. A part that could not be measured is {"reason": "..."}.
"""

from typing import Any, Literal

from pydantic import Field

from smtool.config import Section
from smtool.pipelines.spectrum.schema_sections import Direction, Finding, Health, Lens, LowPass, Transfer
from smtool.pipelines.spectrum.schema_spectra import Images, Normalization, PhysicalReading, Reason, ReferenceReading

SCHEMA = "smtool.spectrum/2"


class Published(Section):
    name: str
    label: str
    share: list[float]


class Origin(Section):
    name: str
    kind: str


class Data(Section):
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


class Passport(Section):
    """What must be known to read the numbers or to repeat them. images: how many every section used, the first of the data;
    downsample_pad: of all encoders, where it was asked for."""

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


class Passes(Section):
    images: int
    seconds: float


class Codings(Section):
    encode: Passes
    decode: Passes


class Cost(Section):
    """Seconds by section; of the network passes alone; memory in MB. The only part that differs between equal commands."""

    seconds: dict[str, float]
    passes: dict[str, Codings]
    pass_seconds: float
    report_seconds: float
    peak_memory_mb: dict[str, int]


class Autoencoder(Section):
    label: str
    path: str
    digest: str
    architecture: str
    deterministic: bool
    can_decode: bool
    downsample: int
    latent_channels: int
    latent_size: tuple[int, int]
    normalization: Normalization
    physical: list[PhysicalReading]
    reference: list[ReferenceReading]
    transfer: Transfer | Reason
    low_pass: LowPass | Reason
    lens: Lens | Reason
    direction: Direction
    health: Health
    verdict: list[Finding]


class Report(Section):
    """spectrum.json. images: of the same images, physical and reference as far as they were asked for."""

    schema_: Literal["smtool.spectrum/2"] = Field(alias="schema")
    smtool: str
    passport: Passport
    cost: Cost
    images: Images
    autoencoders: list[Autoencoder]
    published: list[Published]


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (draft 2020-12)."""
    described = Report.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **described, "title": "smtool spectrum"}
