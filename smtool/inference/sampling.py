"""How samples were drawn, as samples.json beside them and the passports of their scores say it."""

from typing import Annotated, Literal

from pydantic import PlainSerializer

from smtool.config import Config
from smtool.data.batches import Rounding
from smtool.diffusion import Sampler


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
