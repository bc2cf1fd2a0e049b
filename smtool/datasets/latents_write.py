"""From images and an autoencoder to a latent cache: restartable, and with the same bytes however often it was cut off."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from smtool.datasets.card import Shard, verify_shards
from smtool.datasets.latents_card import LATENT_CARD_NAME, LatentCard, latents_folder, read_latent_card
from smtool.datasets.latents_encode import encoded
from smtool.datasets.latents_measure import LatentMoments, Measured
from smtool.datasets.latents_shards import LatentDtype, LatentSample, bytes_per_image, packed, rounded, write_latent_shard
from smtool.datasets.loading import prefetched
from smtool.datasets.preparation import IMAGES_PER_SHARD, Report
from smtool.datasets.reader import ImageShards
from smtool.datasets.types import ImageBatch
from smtool.datasets.unfinished import ShardNote, alone_in, begin, end, read_note, write_note
from smtool.errors import DataError, DiskError
from smtool.metrics.frechet import FeatureStats
from smtool.networks.autoencoder import Autoencoder
from smtool.storage import write_json


@dataclass(frozen=True)
class LatentPreparation:
    """Everything that decides the contents of a latent cache.

    autoencoder_digest, checkpoint: who the autoencoder is and where it lay. flip: encode the flipped images too.
    stats_images: how many images the statistics are measured on, None for all; of each that, flipped or not, is in the cache.
    """

    autoencoder: Autoencoder
    images: ImageShards
    autoencoder_digest: str
    checkpoint: str
    flip: bool = True
    dtype: LatentDtype = "bf16"
    stats_images: int | None = None
    seed: int = 0
    images_per_shard: int = IMAGES_PER_SHARD

    def plan(self) -> dict[str, Any]:
        """What a repeated or a resumed run must agree in. Not the batch: other sizes change the last digit only."""
        return {
            "format": "smtool latents 1",
            "autoencoder": self.autoencoder_digest,
            "data": self.images.digest,
            "flip": self.flip,
            "dtype": self.dtype,
            "stats_images": self.measured_images,
            "seed": self.seed,
            "images_per_shard": self.images_per_shard,
        }

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        size = self.images.image_size
        try:
            return self.autoencoder.section.latent_shape(size, size)
        except ValueError as error:
            raise DataError(f"{self.images.folder}: {error}.", hint="Prepare the images in another --size.") from error

    @property
    def measured_images(self) -> int:
        return len(self.images) if self.stats_images is None else min(self.stats_images, len(self.images))

    @property
    def folder(self) -> Path:
        """Where the cache lies by default."""
        return latents_folder(
            self.images.folder.resolve().name,
            autoencoder=self.autoencoder_digest,
            data=self.images.digest,
            flip=self.flip,
            dtype=self.dtype,
        )

    def estimated_bytes(self) -> int:
        """What the whole cache will take on the disk, to about a per cent; nothing is encoded for it."""
        labelled = self.images.num_classes > 0
        return len(self.images) * bytes_per_image(self.latent_shape, self.dtype, flip=self.flip, labelled=labelled)


class LatentNote(ShardNote):
    """A finished shard and the moments of those of its latents that are measured (cells: 0 when none are)."""

    latents: int
    cells: int
    mean: tuple[float, ...]
    scatter: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, shard: Shard, moments: LatentMoments | None) -> "LatentNote":
        if moments is None:
            return cls(shard=shard, latents=0, cells=0, mean=(), scatter=())
        cells = moments.cells
        scatter = tuple(tuple(row) for row in cells.scatter.tolist())
        return cls(shard=shard, latents=moments.count, cells=cells.count, mean=tuple(cells.mean.tolist()), scatter=scatter)

    @property
    def moments(self) -> LatentMoments:
        mean, scatter = (torch.tensor(value, dtype=torch.float64) for value in (self.mean, self.scatter))
        return LatentMoments(self.latents, FeatureStats(self.cells, mean, scatter))


def write_latents(
    preparation: LatentPreparation, out: Path, *, batch: int, workers: int, report: Report | None = None
) -> LatentCard:
    """Fill `out`, or finish what an interrupted run began there, or verify what a finished one left; returns the card.

    batch: images encoded at a time, where the autoencoder lies; workers: threads that decode images.
    """
    if preparation.measured_images < 1:
        raise DataError("Latent statistics need at least one image.")
    with alone_in(out):
        if (out / LATENT_CARD_NAME).is_file():
            card = _finished(preparation, out)
        else:
            begin(out, preparation.plan())
            card = _run(preparation, out, batch, workers, report)
        end(out)
        return card


def _run(preparation: LatentPreparation, out: Path, batch: int, workers: int, report: Report | None) -> LatentCard:
    images, length = preparation.images, preparation.images_per_shard
    chunks = {
        f"{images.split}-{number:06d}": range(start, min(start + length, len(images)))
        for number, start in enumerate(range(0, len(images), length))
    }
    notes = {name: note for name in chunks if (note := read_note(out, name, LatentNote))}
    todo = {name: chunk for name, chunk in chunks.items() if name not in notes}
    done = sum(len(chunks[name]) for name in notes)
    _refuse_small_disk(out, preparation.estimated_bytes() * (len(images) - done) // len(images))
    progress = _Progress(len(images), report)
    progress.add(done)
    pieces = {name: _pieces(chunk, batch) for name, chunk in todo.items()}
    with closing(prefetched(images.read, list(chain(*pieces.values())), workers)) as batches:
        for name in todo:
            samples = _Samples(preparation, pieces[name], islice(batches, len(pieces[name])), progress)
            shard = write_latent_shard(out / f"{name}.tar", samples)
            notes[name] = LatentNote.of(shard, samples.moments)
            write_note(out, name, notes[name])
    card = _card(preparation, [notes[name] for name in chunks])
    write_json(out / LATENT_CARD_NAME, card.model_dump(mode="json"))
    return card


def _pieces(chunk: range, batch: int) -> list[range]:
    """Batches begin anew in every shard, so that a resumed run encodes the same images together."""
    return [chunk[start : start + batch] for start in range(0, len(chunk), batch)]


@dataclass
class _Samples:
    """A shard's samples, encoded batch by batch; their moments are gathered on the way."""

    preparation: LatentPreparation
    pieces: list[range]
    batches: Iterator[ImageBatch]
    progress: "_Progress"
    moments: LatentMoments | None = None

    def __iter__(self) -> Iterator[LatentSample]:
        for piece, batch in zip(self.pieces, self.batches, strict=True):
            sides = [self._members(piece, batch, flipped) for flipped in (False, True)[: 1 + self.preparation.flip]]
            labels = [None] * len(batch) if batch.labels is None else batch.labels.tolist()
            for key, label, members in zip(batch.ids, labels, zip(*sides, strict=True), strict=True):
                yield LatentSample(key, label, members)
            self.progress.add(len(batch))

    def _members(self, piece: range, batch: ImageBatch, flipped: bool) -> list[bytes]:
        posterior = encoded(self.preparation.autoencoder, batch.images.flip(-1) if flipped else batch.images, batch.ids)
        stored = rounded(posterior, self.preparation.dtype)
        if count := len(range(piece.start, min(piece.stop, self.preparation.measured_images))):
            measured = type(stored)(stored.mean[:count], stored.logvar[:count])
            part = LatentMoments.of(measured, piece[:count], flipped=flipped, seed=self.preparation.seed)
            self.moments = part if self.moments is None else self.moments + part
        return packed(stored, self.preparation.dtype)


@dataclass
class _Progress:
    total: int
    report: Report | None
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        if self.report:
            self.report(self.done, self.total)


def _card(preparation: LatentPreparation, notes: list[LatentNote]) -> LatentCard:
    moments, *more = (note.moments for note in notes if note.cells)
    for other in more:
        moments = moments + other
    images = preparation.images
    return LatentCard(
        autoencoder=preparation.autoencoder_digest,
        checkpoint=preparation.checkpoint,
        data=images.digest,
        images_folder=str(images.folder),
        split=images.split,
        image_size=images.image_size,
        latent_shape=preparation.latent_shape,
        dtype=preparation.dtype,
        flip=preparation.flip,
        seed=preparation.seed,
        num_classes=images.num_classes,
        measured=Measured.of(moments),
        shards=tuple(note.shard for note in notes),
    )


def _finished(preparation: LatentPreparation, out: Path) -> LatentCard:
    card = read_latent_card(out)
    sides = 1 + card.flip
    have = card.model_dump(include={"autoencoder", "data", "flip", "dtype", "seed"})
    have["stats_images"] = card.measured.count // sides
    plan = preparation.plan()
    if differing := [name for name in have if have[name] != plan[name]]:
        name = differing[0]
        raise DataError(
            f"{out} already holds latents with {name} = {have[name]}, but {name} = {plan[name]} is asked for.",
            hint="Choose another --out, or delete that folder first.",
        )
    verify_shards(out, card.shards)
    return card


def _refuse_small_disk(out: Path, needed: int) -> None:
    if (free := shutil.disk_usage(out).free) < needed:
        raise DiskError(
            f"{out}: the latents need {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free.",
            hint="Choose another --out, or leave the cache out and encode while training (--online).",
        )
