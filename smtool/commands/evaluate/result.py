"""Result of `smtool eval`: scores with their passports, the images that were scored and compared with, and the device.

docs/eval.schema.json is the JSON Schema of both evaluations; `model_validate_json` reads a file back. Later versions may add keys
but do not rename them. Files hold numbers with all digits; only tables and sentences round them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, TypeAdapter

from smtool.config import Config
from smtool.data.images.decoding import WHITE, used_bits
from smtool.evaluation.scores import FRECHET, ReconstructionScore, SampleScore, Score
from smtool.features.protocol import PROTOCOLS, Protocol
from smtool.image_shape import ImageSize
from smtool.inference.sampling import Sampling


class Computation(Config):
    """Device and precision of the computation. device: "cpu", or the name of a GPU; torch: its version."""

    device: str
    precision: str
    torch: str

    @property
    def sentence(self) -> str:
        return f"Computed in {self.precision} on {self.device}."


class Checkpoint(Config):
    """The tokenizer that was scored.

    path: its path, or its name if it has no file; step: None if smtool did not train it; tile: side in pixels of the tiles that
    were encoded and decoded, absent for whole images.
    """

    path: str
    sha256: str
    step: int | None
    tile: int | None = None


class Images(Config):
    """Images of one split of a prepared folder."""

    source: str
    folder: str
    split: str
    image_size: ImageSize
    sha256: str


class Reconstructed(Images):
    """The reconstructed images. trained_on: whether the tokenizer was trained on them; None in files of old versions."""

    trained_on: bool | None = None


class Compared(Config):
    """One of two compared sets of images. remarks: what is unusual about images of loose files, with their number; left_out: why
    files were not used, with their number. Files of older versions lack both."""

    source: str
    sha256: str
    count: int
    remarks: Mapping[str, int] = Field(default_factory=dict)
    left_out: Mapping[str, int] = Field(default_factory=dict)

    def sentences(self) -> list[str]:
        """Sentences on images that were changed and files that were not used."""
        said = []
        if self.remarks:
            unusual = "; ".join(f"{count:,} with {remark}" for remark, count in self.remarks.items())
            said.append(f"{self.source}, unusual images: {unusual}.")
        if bits := used_bits(self.remarks, WHITE):
            white = 2**bits - 1
            hint = f"smtool prepare {self.source} --size SIZE --white {white} shows it as white"
            said.append(f"{self.source}: its images of 16 bits are dark, because no level is above {white}. {hint}.")
        if self.left_out:
            files = "file is" if sum(self.left_out.values()) == 1 else "files are"
            reasons = "; ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
            said.append(f"{self.source}: {sum(self.left_out.values()):,} {files} not used: {reasons}.")
        return said


class Samples(Compared):
    """The generated images. drawn: how they were sampled; empty if it is unknown."""

    drawn: Sampling


class Reference(Compared):
    """The images that samples are compared with. count: 0 if the reference is a file of statistics that does not state it."""


class Evaluation(Config):
    """Fields of both kinds of evaluation. scores: by name, in the order of the table."""

    smtool: str
    computed: Computation
    scores: Mapping[str, Score]

    @property
    def protocol(self) -> Protocol:
        """The protocol of all scores."""
        return PROTOCOLS[next(iter(self.scores.values())).passport.protocol]

    @property
    def has_frechet(self) -> bool:
        return any(score.passport.metric == FRECHET for score in self.scores.values())

    def shape_sentences(self) -> list[str]:
        """Sentences on channels other than RGB and on sizes that differ, as the passports state them, with titles of scores."""
        titles: dict[str, list[str]] = {}
        for score in self.scores.values():
            stated = score.passport
            for said in (stated.channels if stated.channels != "RGB" else "", stated.warning):
                if said:
                    titles.setdefault(said, []).append(score.title)
        return [f"{', '.join(names)}: {said}." for said, names in titles.items()]

    def to_json(self) -> dict[str, Any]:
        """The JSON that --json writes. Unknown keys of samples and passports are left out."""
        return self.model_dump(mode="json", exclude_unset=True)


class ReconstructionEvaluation(Evaluation):
    """Evaluation of a tokenizer. reference: of the Frechet distances; warnings: by score, if its network was in the loss."""

    checkpoint: Checkpoint
    images: Reconstructed
    reference: Images
    warnings: dict[str, str]
    scores: dict[str, ReconstructionScore]

    def sentences(self) -> list[str]:
        """Sentences to print below the table."""
        said = [f"Protocol {self.protocol.name}: the posterior's {self.protocol.posterior} is decoded."]
        if self.images.trained_on:
            said.append("The autoencoder was trained on these images.")
        if self.has_frechet:
            said.append("Frechet distances decrease with N: compare them only at equal N, images and extractor.")
        said += [f"{name}: {warning}." for name, warning in self.warnings.items()] + self.shape_sentences()
        return [*said, self.computed.sentence]


class SampleEvaluation(Evaluation):
    """Evaluation of generated images. reference: None if no score needs one; image_size: height and width, () for several."""

    samples: Samples
    reference: Reference | None
    image_size: tuple[int, ...]
    scores: dict[str, SampleScore]

    def sentences(self) -> list[str]:
        """Sentences to print below the table."""
        said = [sentence for images in (self.samples, self.reference) if images for sentence in images.sentences()]
        said += self.shape_sentences()
        said += _drawing(self.samples.drawn, self.protocol)
        intervals = "95 %, for another draw of samples with the same reference"
        said.append(f"Protocol {self.protocol.name}. Intervals: {intervals}.")
        if self.has_frechet:
            said.append(
                "Frechet distances are biased upwards and decrease with N: compare them only at equal N, reference and "
                "extractor. Kernel distances have no such bias."
            )
        return [*said, self.computed.sentence]


AnyEvaluation = ReconstructionEvaluation | SampleEvaluation


def computation(device: str) -> Computation:
    """Device and precision: float32; on GPUs, convolutions may use TF32 (inputs rounded to 10 bits, sums in float32)."""
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
    if (guide := drawn.guide) is not None:
        guidance += f" by {guide.path} ({guide.digest[:8]})"
    weights = f"{drawn.weights} weights" + ("" if drawn.step is None else f" of step {drawn.step:,}")
    rounding = drawn.rounding or "nearest"      # older passports do not state it
    coded = f", coded as {drawn.format} before they were scored" if (drawn.format or "").startswith("jpeg") else ""
    precise = "" if sampler.precision == "fp32" else f", in {sampler.precision}"
    said = [f"Drawn by {sampler.kind}, {sampler.steps} steps, {guidance}, {weights}, seed {drawn.seed}{precise}{coded}."]
    if (decoder := drawn.decoder) is not None:
        said.append(f"Decoded by {decoder.path} ({decoder.digest[:8]}) in place of the checkpoint's own autoencoder.")
    if rounding != protocol.rounding:
        said.append(
            f"Their pixels were rounded to uint8 by {rounding}, but protocol {protocol.name} uses {protocol.rounding}: "
            f"smtool sample --rounding {protocol.rounding}."
        )
    return said
