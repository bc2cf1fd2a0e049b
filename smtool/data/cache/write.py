"""Write a cache of a network's outputs for images: resumable, with bytes that do not depend on interruptions.

Threads read images ahead of the network, and one thread packs, measures and writes its outputs behind it.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from smtool.data.batches import ImageBatch
from smtool.data.cache.behind import consumed_behind
from smtool.data.cache.card import CacheCard, CacheDtype
from smtool.data.cache.shards import CacheSample, bytes_per_image, write_cache_shard
from smtool.data.images.card import Shard, verify_shards
from smtool.data.images.loading import prefetched
from smtool.data.images.progress import Report
from smtool.data.images.reader import ImageShards
from smtool.data.images.unfinished import ShardNote, alone_in, begin, end, read_note, write_note
from smtool.errors import DataError, DiskError
from smtool.storage import write_json

Note = TypeVar("Note", bound=ShardNote)
NoteMade = TypeVar("NoteMade", bound=ShardNote, covariant=True)
Card = TypeVar("Card", bound=CacheCard, covariant=True)


BATCHES_BEHIND = 4
"""Batches of outputs that may wait for the thread that writes them."""


class Contents(Protocol[NoteMade]):
    """One shard while it is being written, by a thread behind the network."""

    def members(self, piece: range, batch: ImageBatch, outputs: Any, *, flipped: bool) -> list[bytes]:
        """Packed outputs for each image (numbers `piece` in the split) or, if flipped, for each mirrored image.

        outputs: what `CachePreparation.outputs` returned, for which this waits.
        """

    def note(self, shard: Shard) -> NoteMade:
        """The note of the written shard."""


class CachePreparation(Protocol[Note, Card]):
    """All inputs and settings that determine the contents of a cache.

    device: of the network; shapes: of the tensors of one image, by name; card_name: file name of the card; what: name of the
    outputs in messages; note: type of the note of a shard.
    """

    @property
    def images(self) -> ImageShards: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def flip(self) -> bool: ...
    @property
    def dtype(self) -> CacheDtype: ...
    @property
    def shapes(self) -> Mapping[str, Sequence[int]]: ...
    @property
    def images_per_shard(self) -> int: ...
    @property
    def what(self) -> str: ...
    @property
    def card_name(self) -> str: ...
    @property
    def note(self) -> type[Note]: ...

    def plan(self) -> dict[str, Any]:
        """Settings that must be equal in a repeated or resumed run. Without the batch size, which changes only rounding."""

    def outputs(self, batch: ImageBatch, *, flipped: bool) -> Any:
        """Begin to compute the outputs for a batch, uint8, or for its mirrored images. On a GPU, without waiting for it."""

    def begin_shard(self) -> Contents[Note]: ...

    def card(self, notes: Sequence[Note]) -> Card: ...

    def finished(self, folder: Path) -> tuple[Card, dict[str, Any]]:
        """The card of a finished cache, and the part of its plan that the card records."""


def estimated_bytes(preparation: CachePreparation[Note, Card]) -> int:
    """Estimated size of the whole cache on disk, in bytes, to about one percent."""
    images = preparation.images
    sizes = {"flip": preparation.flip, "labelled": images.num_classes > 0}
    return len(images) * bytes_per_image(preparation.shapes, preparation.dtype, **sizes)


def shared_fields(preparation: CachePreparation[Note, Card], notes: Sequence[Note]) -> dict[str, Any]:
    """The fields that every cache's card has (`CacheCard`)."""
    images = preparation.images
    return {
        "data": images.digest,
        "images_folder": str(images.folder),
        "split": images.split,
        "image_size": images.image_size,
        "dtype": preparation.dtype,
        "flip": preparation.flip,
        "num_classes": images.num_classes,
        "shards": tuple(note.shard for note in notes),
    }


def write_cache(
    preparation: CachePreparation[Note, Card], out: Path, *, batch: int, workers: int, report: Report | None = None
) -> Card:
    """Write the cache to `out`; resume an interrupted run, or verify a finished one. Returns the card.

    batch: images per forward pass of the network; workers: threads that decode images.
    """
    with alone_in(out):
        if (out / preparation.card_name).is_file():
            card = _verified(preparation, out)
        else:
            begin(out, preparation.plan())
            card = preparation.card(_written(preparation, out, batch, workers, report))
            write_json(out / preparation.card_name, card.model_dump(mode="json"))
        end(out)
        return card


def _written(
    preparation: CachePreparation[Note, Card], out: Path, batch: int, workers: int, report: Report | None
) -> list[Note]:
    """Write the missing shards; return the notes of all shards, in order."""
    images, length = preparation.images, preparation.images_per_shard
    chunks = {
        f"{images.split}-{number:06d}": range(start, min(start + length, len(images)))
        for number, start in enumerate(range(0, len(images), length))
    }
    notes = {name: note for name in chunks if (note := read_note(out, name, preparation.note))}
    todo = {name: chunk for name, chunk in chunks.items() if name not in notes}
    done = sum(len(chunks[name]) for name in notes)
    _refuse_small_disk(out, preparation.what, estimated_bytes(preparation) * (len(images) - done) // len(images))
    progress = _Progress(len(images), report)
    progress.add(done)
    pieces = {name: _pieces(chunk, batch) for name, chunk in todo.items()}

    def write(computed: Iterator[_Computed]) -> None:
        for name in todo:
            contents = preparation.begin_shard()
            samples = _samples(contents, islice(computed, len(pieces[name])), progress)
            notes[name] = contents.note(write_cache_shard(out / f"{name}.tar", samples))
            write_note(out, name, notes[name])

    asked = [piece for name in todo for piece in pieces[name]]
    sides = (False, True)[: 1 + preparation.flip]
    with (
        closing(prefetched(lambda piece: _read(preparation, piece), asked, workers)) as batches,
        consumed_behind(write, waiting=BATCHES_BEHIND) as hand_over,
    ):
        for piece, read in zip(asked, batches, strict=True):
            hand_over(_Computed(piece, read, [preparation.outputs(read, flipped=flipped) for flipped in sides]))
    return [notes[name] for name in chunks]


class _Computed(NamedTuple):
    """The images of a piece, and the network's outputs for them and, if they are stored, for their mirrored images."""

    piece: range
    batch: ImageBatch
    sides: list[Any]


def _read(preparation: CachePreparation[Note, Card], piece: range) -> ImageBatch:
    found = preparation.images.read_stored(piece)
    return found.pinned() if preparation.device.type == "cuda" else found


def _pieces(chunk: range, batch: int) -> list[range]:
    """The batches of one shard. No batch spans two shards, so that a resumed run has the same batches."""
    return [chunk[start : start + batch] for start in range(0, len(chunk), batch)]


def _samples(contents: Contents[Note], computed: Iterator[_Computed], progress: "_Progress") -> Iterator[CacheSample]:
    for piece, batch, outputs in computed:
        sides = [contents.members(piece, batch, found, flipped=bool(side)) for side, found in enumerate(outputs)]
        labels = [None] * len(batch) if batch.labels is None else batch.labels.tolist()
        for key, label, members in zip(batch.ids, labels, zip(*sides, strict=True), strict=True):
            yield CacheSample(key, label, members)
        progress.add(len(batch))


@dataclass
class _Progress:
    total: int
    report: Report | None
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        if self.report:
            self.report(self.done, self.total)


def _verified(preparation: CachePreparation[Note, Card], out: Path) -> Card:
    card, have = preparation.finished(out)
    plan = preparation.plan()
    if differing := [name for name in have if have[name] != plan.get(name)]:
        name = differing[0]
        raise DataError(
            f"{out} already holds {preparation.what} with {name} = {_said(have[name])}, but {name} = {_said(plan.get(name))} was "
            "requested.",
            hint="Choose another --out, or delete that folder first.",
        )
    verify_shards(out, card.shards)
    return card


def _said(value: Any) -> Any:
    """A setting in words. Plans leave defaults of settings out that earlier versions did not have."""
    return "the default" if value is None else value


def _refuse_small_disk(out: Path, what: str, needed: int) -> None:
    if (free := shutil.disk_usage(out).free) < needed:
        raise DiskError(
            f"{out}: the {what} need {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free.",
            hint=f"Choose another --out, or train without a cache: training can compute {what} at each step.",
        )
