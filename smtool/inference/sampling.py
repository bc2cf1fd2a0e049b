"""How samples were drawn, for samples.json in their folder and for the passports of their scores."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, JsonValue, PlainSerializer

from smtool.checkpoints.learned_from import learned_from
from smtool.config import Config
from smtool.data.batches import Rounding
from smtool.diffusion import Sampler
from smtool.errors import DataError
from smtool.inference.diffusion_model import DiffusionModel

SAMPLING_FILE = "samples.json"
NEWER: Mapping[str, tuple[JsonValue, ...]] = {
    "cfg_channels": (0,),
    "epsilon_scale": (1.0,),
    "stop_time": (0.0,),
    "precision": ("fp32", "auto"),
}
"""Keys of `[sampler]` that passports and races of earlier versions do not have, with the values that mean what these versions
did. All computed in fp32."""


class Decoder(Config):
    """An autoencoder that decoded samples in place of the checkpoint's own.

    path: name that it was opened with; digest: of its weights; learned_from: names of the frozen networks in its training losses.
    """

    path: str
    digest: str
    learned_from: tuple[str, ...] = ()


class GuidedBy(Config):
    """A weaker transformer that guided samples.

    path: name that it was opened with; digest: of its weights; step: of its training, None for published weights; learned_from:
    its teachers.
    """

    path: str
    digest: str
    step: int | None = None
    learned_from: tuple[str, ...] = ()


def stored_sampler(values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A `[sampler]` table without newer keys that change nothing: records of versions without these keys stay equal."""
    return {key: value for key, value in values.items() if value not in NEWER.get(key, ())}


def _stated(sampler: Sampler) -> Sampler:
    """A record without a precision is of a version that had fp32 only."""
    return sampler.model_copy(update={"precision": "fp32"}) if sampler.precision == "auto" else sampler


def _stored(sampler: Sampler) -> dict[str, JsonValue]:
    return stored_sampler(sampler.model_dump(mode="json"))


class Sampling(Config):
    """How samples were drawn, as far as it is known; no field is set for images of unknown origin.

    checkpoint, autoencoder: digests; step: of training, None for published weights; weights: "average" or "last" of a run of
    smtool, "published" if the file does not state it; labels: the requested classes, None for a network without classes;
    rounding: of pixels to uint8; tile: side of the tiles that were decoded, None for whole images; decoder: None for the
    checkpoint's own autoencoder. smtool, num_images: of samples in files; format: of files, or the JPEG of samples that were
    coded without files; guide: None without guidance, or if it was by the null class.
    """

    smtool: str | None = None
    checkpoint: str | None = None
    autoencoder: str | None = None
    step: int | None = None
    weights: Literal["average", "last", "published"] | None = None
    sampler: Annotated[Sampler, AfterValidator(_stated), PlainSerializer(_stored)] | None = None
    labels: str | None = None
    seed: int | None = None
    rounding: Rounding | None = None
    num_images: int | None = None
    format: str | None = None
    tile: int | None = None
    decoder: Decoder | None = None
    guide: GuidedBy | None = None

    @property
    def known(self) -> bool:
        """Whether anything is known of how the samples were drawn."""
        return bool(self.model_fields_set)

    def to_json(self) -> dict[str, Any]:
        """The known keys and their values."""
        return self.model_dump(mode="json", exclude_unset=True)


def sampling_of(model: DiffusionModel, sampler: Sampler, *, labels: str, seed: int, rounding: Rounding, **more: Any) -> Sampling:
    """The `Sampling` of samples that a model is about to draw. sampler: with a stated precision; more: further fields."""
    if (guide := model.guide) is not None:
        more["guide"] = GuidedBy(
            path=guide.path,
            digest=guide.metadata["digest"],
            step=guide.metadata["step"],
            learned_from=learned_from(guide.metadata),
        )
    return Sampling(
        checkpoint=model.metadata["digest"],
        step=model.metadata["step"],
        weights=model.metadata["weights"],
        sampler=sampler,
        labels=labels if model.num_classes else None,
        seed=seed,
        rounding=rounding,
        **more,
    )


def read_sampling(folder: Path) -> Sampling:
    """Read samples.json of a folder; an empty `Sampling` if there is none.

    An older file without `rounding` means "nearest". Raises DataError for a damaged file.
    """
    note = folder / SAMPLING_FILE
    if not note.is_file():
        return Sampling()
    try:
        return Sampling.model_validate({"rounding": "nearest", **json.loads(note.read_text(encoding="utf-8"))})
    except (ValueError, TypeError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{note} does not state how samples were drawn: {first}.", hint="Sample again, or delete it.") from error
