"""How samples were drawn, as samples.json beside them and the passports of their scores say it."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer, ValidationError

from smtool.config import Config
from smtool.data.batches import Rounding
from smtool.diffusion import Sampler
from smtool.errors import DataError
from smtool.inference.diffusion_model import DiffusionModel

SAMPLING_FILE = "samples.json"


class Sampling(Config):
    """What is known of how samples were drawn; nothing is set for images of unknown origin.

    checkpoint, autoencoder: digests; step: of training, None for published weights; weights: "average" or "last" of a training
    of ours, "published" where the file does not say; labels: classes as they were asked for, None for a network without;
    rounding: of pixels to uint8. smtool, num_images, format: of samples in files.
    """

    smtool: str | None = None
    checkpoint: str | None = None
    autoencoder: str | None = None
    step: int | None = None
    weights: Literal["average", "last", "published"] | None = None
    sampler: Annotated[Sampler, PlainSerializer(lambda sampler: sampler.model_dump(mode="json"))] | None = None
    labels: str | None = None
    seed: int | None = None
    rounding: Rounding | None = None
    num_images: int | None = None
    format: str | None = None

    @property
    def known(self) -> bool:
        return bool(self.model_fields_set)

    def to_json(self) -> dict[str, Any]:
        """Without the keys that are not known."""
        return self.model_dump(mode="json", exclude_unset=True)


def sampling_of(model: DiffusionModel, sampler: Sampler, *, labels: str, seed: int, rounding: Rounding, **more: Any) -> Sampling:
    """Of samples that a model is about to draw. more: further fields of `Sampling`."""
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
    """What samples.json says of the samples in a folder; nothing for other folders.

    A file without `rounding` is from before there was a choice: to the nearest level. Raises DataError for a damaged one.
    """
    note = folder / SAMPLING_FILE
    if not note.is_file():
        return Sampling()
    try:
        return Sampling.model_validate({"rounding": "nearest", **json.loads(note.read_text(encoding="utf-8"))})
    except (json.JSONDecodeError, TypeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{note} does not say how samples were drawn: {first}.", hint="Draw them again, or delete it.") from error
