"""What `smtool eval` finds: scores with their passports, what was scored and compared with, and how it was computed.

docs/eval.schema.json is both evaluations, as JSON Schema; `model_validate_json` reads a file back. Keys are added over time, not
renamed. Numbers are written as they were measured: only tables and sentences round.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import TypeAdapter

from smtool.config import Config
from smtool.evaluation.scores import FRECHET, ReconstructionScore, SampleScore, Score
from smtool.features.protocol import PROTOCOLS, Protocol
from smtool.inference.sampling import Sampling


class Computation(Config):
    """How networks were computed. device: "cpu", or the name of a GPU."""

    device: str
    precision: str
    torch: str

    @property
    def sentence(self) -> str:
        return f"Computed in {self.precision} on {self.device}."


class Checkpoint(Config):
    """The tokenizer that was scored. path: its name, where it is no file; step: None for others than those of our runs."""

    path: str
    sha256: str
    step: int | None


class Images(Config):
    """Images of a prepared folder. split: the part of it that is taken."""

    source: str
    folder: str
    split: str
    image_size: int
    sha256: str


class Reconstructed(Images):
    """trained_on: whether the tokenizer was trained on these very images; None in files of versions that did not look."""

    trained_on: bool | None = None


class Samples(Config):
    """drawn: how; empty for images of unknown origin."""

    source: str
    sha256: str
    count: int
    drawn: Sampling


class Reference(Config):
    """Images that samples are compared with. count: 0 where a file of statistics does not say of how many they are."""

    source: str
    sha256: str
    count: int


class Evaluation(Config):
    """What both have in common. scores: by their names, in the order of the table."""

    smtool: str
    computed: Computation
    scores: Mapping[str, Score]

    @property
    def protocol(self) -> Protocol:
        """Of all scores."""
        return PROTOCOLS[next(iter(self.scores.values())).passport.protocol]

    @property
    def has_frechet(self) -> bool:
        return any(score.passport.metric == FRECHET for score in self.scores.values())

    def to_json(self) -> dict[str, Any]:
        """As --json writes it: without the keys of samples and passports that are not known."""
        return self.model_dump(mode="json", exclude_unset=True)


class ReconstructionEvaluation(Evaluation):
    """Of a tokenizer. reference: what Frechet distances are taken to; warnings: by score, where the judge was in the loss."""

    checkpoint: Checkpoint
    images: Reconstructed
    reference: Images
    warnings: dict[str, str]
    scores: dict[str, ReconstructionScore]

    def sentences(self) -> list[str]:
        """What must be said below the table."""
        said = [f"Protocol {self.protocol.name}: decoding the posterior's {self.protocol.posterior}."]
        if self.images.trained_on:
            said.append("These are the images that it was trained on.")
        if self.has_frechet:
            said.append("Frechet distances fall as N grows: compare them at equal N, images and extractor only.")
        said += [f"{name}: {warning}." for name, warning in self.warnings.items()]
        return [*said, self.computed.sentence]


class SampleEvaluation(Evaluation):
    """Of generated images. reference: None where nothing is compared; image_size: height and width."""

    samples: Samples
    reference: Reference | None
    image_size: tuple[int, ...]
    scores: dict[str, SampleScore]

    def sentences(self) -> list[str]:
        """What must be said below the table."""
        said = _drawing(self.samples.drawn, self.protocol)
        intervals = "how another draw of samples would scatter, the reference as it is"
        said.append(f"Protocol {self.protocol.name}. Intervals: {intervals}.")
        if self.has_frechet:
            said.append(
                "Frechet distances are too large at finite N, and fall as it grows: compare them at equal N, reference and "
                "extractor only. Kernel distances have no such bias."
            )
        return [*said, self.computed.sentence]


AnyEvaluation = ReconstructionEvaluation | SampleEvaluation


def computation(device: str) -> Computation:
    """How networks were computed: weights and sums are float32 everywhere, but a GPU may round the factors of convolutions."""
    rounded = device.startswith("cuda") and torch.backends.cudnn.allow_tf32
    return Computation(
        device=torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        precision="float32, convolutions in TF32" if rounded else "float32",
        torch=torch.__version__,
    )


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (draft 2020-12)."""
    described = TypeAdapter(AnyEvaluation).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "smtool.eval", **described, "title": "smtool eval"}


def _drawing(drawn: Sampling, protocol: Protocol) -> list[str]:
    if (sampler := drawn.sampler) is None:
        return []
    guidance = f"guidance {sampler.cfg_scale:g}" if sampler.cfg_scale != 1 else "no guidance"
    weights = f"{drawn.weights} weights" + ("" if drawn.step is None else f" of step {drawn.step:,}")
    rounding = drawn.rounding or "nearest"      # passports without it were written before there was a choice
    said = [f"Drawn by {sampler.kind}, {sampler.steps} steps, {guidance}, {weights}, seed {drawn.seed}."]
    if rounding != protocol.rounding:
        said.append(
            f"Their pixels were brought to uint8 by {rounding}, but protocol {protocol.name} does it by "
            f"{protocol.rounding}: smtool sample --rounding {protocol.rounding}."
        )
    return said
