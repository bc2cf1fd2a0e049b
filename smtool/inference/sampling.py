"""How samples were drawn, for samples.json in their folder and for the passports of their scores."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import JsonValue, PlainSerializer

from smtool.checkpoints.learned_from import learned_from
from smtool.config import Config
from smtool.data.batches import Rounding
from smtool.diffusion import Sampler
from smtool.errors import DataError
from smtool.inference.diffusion_model import DiffusionModel

SAMPLING_FILE = "samples.json"
NEWER = ("cfg_channels", "epsilon_scale", "stop_time")
"""Keys of `[sampler]` that passports and races of earlier versions do not have."""


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
    usual = Sampler().model_dump(mode="json", include=set(NEWER))
    return {key: value for key, value in values.items() if key not in usual or value != usual[key]}


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
    sampler: Annotated[Sampler, PlainSerializer(_stored)] | None = None
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
    """The `Sampling` of samples that a model is about to draw. more: further fields of `Sampling`."""
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
