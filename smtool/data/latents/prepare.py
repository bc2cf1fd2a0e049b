"""The contents of a latent cache: the posterior moments of every image, and their statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from smtool.data.batches import ImageBatch, signed
from smtool.data.cache.card import CacheDtype
from smtool.data.cache.shards import packed, rounded
from smtool.data.cache.write import shared_fields, write_cache
from smtool.data.images.card import Shard
from smtool.data.images.prepare import IMAGES_PER_SHARD
from smtool.data.images.progress import Report
from smtool.data.images.reader import ImageShards
from smtool.data.images.unfinished import ShardNote
from smtool.data.latents.card import LATENT_CARD_NAME, LatentCard, latents_folder, read_latent_card
from smtool.data.latents.dct_measures import measure_dct
from smtool.data.latents.statistics import LatentMoments, Measured, MeasuredPower
from smtool.devices import ReadLater, to_device
from smtool.errors import DataError
from smtool.metrics.frechet import FeatureStats
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.tokenizers.dct import DCT
from smtool.tokenizers.encode import Encoded, EncodingPrecision, begin_encoding


class LatentNote(ShardNote):
    """A finished shard, and mean, scatter and power of its latents that enter the statistics (cells: 0 if none do).

    power: None if it was not measured, as in notes of earlier versions.
    """

    latents: int
    cells: int
    mean: tuple[float, ...]
    scatter: tuple[tuple[float, ...], ...]
    power: MeasuredPower | None = None

    @classmethod
    def of(cls, shard: Shard, moments: LatentMoments | None) -> "LatentNote":
        if moments is None:
            return cls(shard=shard, latents=0, cells=0, mean=(), scatter=())
        cells = moments.cells
        scatter = tuple(tuple(row) for row in cells.scatter.tolist())
        return cls(
            shard=shard,
            latents=moments.count,
            cells=cells.count,
            mean=tuple(cells.mean.tolist()),
            scatter=scatter,
            power=None if moments.power is None else MeasuredPower.of(moments.power),
        )

    @property
    def moments(self) -> LatentMoments:
        mean, scatter = (torch.tensor(value, dtype=torch.float64) for value in (self.mean, self.scatter))
        power = None if self.power is None else self.power.radial
        return LatentMoments(self.latents, FeatureStats(self.cells, mean, scatter), power)


@dataclass(frozen=True)
class LatentPreparation:
    """All inputs and settings that determine the contents of a latent cache.

    checkpoint: path of the autoencoder, recorded in the card, as is tile, the side of the tiles that `autoencoder` encodes. flip:
    encode the flipped images too. stats_images: number of images on which the statistics are measured (None: all); with flip,
    their flipped latents are measured too.
    """

    autoencoder: Tokenizer
    images: ImageShards
    autoencoder_digest: str
    checkpoint: str
    flip: bool = True
    dtype: CacheDtype = "bf16"
    stats_images: int | None = None
    seed: int = 0
    images_per_shard: int = IMAGES_PER_SHARD
    tile: int | None = None
    what: ClassVar[str] = "latents"
    card_name: ClassVar[str] = LATENT_CARD_NAME
    note: ClassVar[type[LatentNote]] = LatentNote

    def plan(self) -> dict[str, Any]:
        return {
            "format": "smtool latents 1",
            "autoencoder": self.autoencoder_digest,
            "data": self.images.digest,
            "flip": self.flip,
            "dtype": self.dtype,
            "stats_images": self.measured_images,
            "seed": self.seed,
            "images_per_shard": self.images_per_shard,
            **({} if self.tile is None else {"tile": self.tile}),
            **({} if self.precision == "fp32" else {"precision": self.precision}),
        }

    @property
    def precision(self) -> EncodingPrecision:
        """In which images are encoded."""
        return self.autoencoder.encodes_in

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        try:
            return self.autoencoder.latent_shape(*self.images.image_size)
        except ValueError as error:
            raise DataError(f"{self.images.folder}: {error}.", hint="Prepare the images in another --size.") from error

    @property
    def measured_images(self) -> int:
        return len(self.images) if self.stats_images is None else min(self.stats_images, len(self.images))

    @property
    def folder(self) -> Path:
        """Default folder of the cache."""
        return latents_folder(
            self.images.folder.resolve().name,
            autoencoder=self.autoencoder_digest,
            data=self.images.digest,
            flip=self.flip,
            dtype=self.dtype,
            precision=self.precision,
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("mean", "logvar"), self.latent_shape)

    @property
    def device(self) -> torch.device:
        return self.autoencoder.device

    def outputs(self, batch: ImageBatch, *, flipped: bool) -> "Moments":
        images = to_device(batch.images, self.device)
        begun = begin_encoding(self.autoencoder, signed(images.flip(-1) if flipped else images), batch.ids)
        return Moments(begun, ReadLater(begun.posterior.mean), ReadLater(begun.posterior.logvar))

    def begin_shard(self) -> "LatentContents":
        return LatentContents(self)

    def card(self, notes: Sequence[LatentNote]) -> LatentCard:
        moments, *more = (note.moments for note in notes if note.cells)
        for other in more:
            moments = moments + other
        described = self.autoencoder.config
        return LatentCard(
            autoencoder=self.autoencoder_digest,
            checkpoint=self.checkpoint,
            latent_shape=self.latent_shape,
            seed=self.seed,
            measured=Measured.of(moments),
            tile=self.tile,
            precision=self.precision,
            dct=measure_dct(described, self.images) if isinstance(described, DCT) else None,
            **shared_fields(self, notes),
        )

    def finished(self, folder: Path) -> tuple[LatentCard, dict[str, Any]]:
        card = read_latent_card(folder)
        stated = card.model_dump(include={"autoencoder", "data", "flip", "dtype", "seed", "tile"})
        precision = None if card.precision == "fp32" else card.precision
        return card, {**stated, "stats_images": card.measured.count // (1 + card.flip), "precision": precision}


class Moments(NamedTuple):
    """The encoding of a batch, and its moments on their way to the host."""

    begun: Encoded
    mean: ReadLater
    logvar: ReadLater


@dataclass
class LatentContents:
    """A shard of posterior moments while it is written; accumulates the statistics."""

    preparation: LatentPreparation
    moments: LatentMoments | None = None

    def members(self, piece: range, batch: ImageBatch, outputs: Moments, *, flipped: bool) -> list[bytes]:
        dtype = self.preparation.dtype
        outputs.begun.checked()
        mean, logvar = (rounded(later.value, dtype) for later in (outputs.mean, outputs.logvar))
        if count := len(range(piece.start, min(piece.stop, self.preparation.measured_images))):
            measured = Posterior(mean[:count], logvar[:count])
            images = signed(batch.images[:count])
            part = LatentMoments.of(measured, images, piece[:count], flipped=flipped, seed=self.preparation.seed)
            self.moments = part if self.moments is None else self.moments + part
        return packed({"mean": mean, "logvar": logvar}, dtype)

    def note(self, shard: Shard) -> LatentNote:
        return LatentNote.of(shard, self.moments)


def write_latents(
    preparation: LatentPreparation, out: Path, *, batch: int, workers: int, report: Report | None = None
) -> LatentCard:
    """Write, resume or verify the cache in `out` (`write_cache`). batch: images per encoder pass, on the autoencoder's device."""
    if preparation.measured_images < 1:
        raise DataError("Latent statistics need at least one image.")
    return write_cache(preparation, out, batch=batch, workers=workers, report=report)
