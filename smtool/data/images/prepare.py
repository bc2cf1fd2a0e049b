"""Prepare a source as a folder of shards: in parallel, resumable, with bytes that do not depend on workers or interruptions."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from smtool.data.images.card import CARD_NAME, UNFINISHED, DatasetCard, MeanSpectrum, SourceNote, Split, read_card, verify
from smtool.data.images.entries import Entry, Sample, Skipped
from smtool.data.images.listing import Listing, list_entries
from smtool.data.images.reader import ImageShards
from smtool.data.images.shards import write_shard
from smtool.data.images.sources import Source
from smtool.data.images.transform import CROP_RULES, Rule
from smtool.data.images.unfinished import ShardNote, alone_in, begin, end, read_note, refuse, write_note
from smtool.data.images.workers import made_samples
from smtool.errors import DataError
from smtool.spectrum import PHYSICAL, spectrum_of
from smtool.storage import write_json, write_text

IMAGES_PER_SHARD = 1024
VAL_FRACTION = 0.05
MAX_BAD = 0.01
"""Largest fraction of unusable images that is not an error."""
SPECTRUM_IMAGES = 256  # the card's spectrum is measured on this many of the first training images, a random sample
Report = Callable[[int, int], object]


class ImageNote(ShardNote):
    """A finished shard, and counts of its images."""

    upscaled: int
    skipped: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Preparation:
    """All settings that determine the contents of a prepared folder. val_fraction is unused if the source has its own splits."""

    source: Source
    rule: Rule
    val_fraction: float = VAL_FRACTION
    images_per_shard: int = IMAGES_PER_SHARD

    def plan(self) -> dict[str, Any]:
        return {
            "format": "smtool dataset 1",
            "source": {"name": self.source.name, "kind": self.source.kind, "digest": self.source.digest()},
            "rule": asdict(self.rule),
            "val_fraction": self.val_fraction,
            "images_per_shard": self.images_per_shard,
        }


def prepare_images(
    preparation: Preparation, out: Path, *, workers: int, max_bad: float = MAX_BAD, report: Report | None = None
) -> DatasetCard:
    """Prepare images in `out`; resume an interrupted run, or verify a finished one. Returns the card.

    Two processes may call this for the same folder: the second waits, then verifies.
    """
    with alone_in(out):
        plan = preparation.plan()
        if (out / CARD_NAME).is_file():
            card = _finished(out, plan)
        else:
            begin(out, plan)
            card = _run(preparation, out, plan, workers, max_bad, report)
        end(out)
        return card


def _run(
    preparation: Preparation, out: Path, plan: dict[str, Any], workers: int, max_bad: float, report: Report | None
) -> DatasetCard:
    listing = list_entries(preparation.source, size=preparation.rule.size, scratch=out / UNFINISHED)
    splits = _split(listing, preparation)
    progress = _Progress(sum(map(len, splits.values())), max_bad, report)
    try:
        notes = _write_shards(
            out, _chunks(splits, preparation.images_per_shard), preparation.rule, listing.groups, workers, progress
        )
    finally:
        _write_skipped(out, progress.skipped)
    if progress.has_too_many_unusable:
        refuse(out)
        raise progress.too_many_unusable()
    card = _card(preparation, listing, notes, plan)
    if not card.count("train"):
        raise DataError(
            f"{out}: none of {len(listing.entries)} images is usable for training.", hint="Its skipped.jsonl gives the reasons."
        )
    card = card.model_copy(update={"spectrum": _mean_spectrum(out, card)})
    write_json(out / CARD_NAME, card.model_dump(mode="json"))
    return card


def _split(listing: Listing, preparation: Preparation) -> dict[Split, list[Entry]]:
    """Entries by split, sorted by a seeded hash of the id: shuffled, and the order is stable when images are added."""
    seed = preparation.rule.seed
    entries = sorted(listing.entries, key=lambda entry: _hash(f"{seed}/{entry.id}"))
    if listing.has_splits:
        return {"train": [e for e in entries if e.split == "train"], "val": [e for e in entries if e.split == "val"]}
    count = round(preparation.val_fraction * len(entries)) or min(1, preparation.val_fraction > 0)
    return {"train": entries[count:], "val": entries[:count]}


def _chunks(splits: dict[Split, list[Entry]], length: int) -> dict[str, tuple[int, list[Entry]]]:
    """Shard name -> (number of its first entry, its entries)."""
    return {
        f"{split}-{number:06d}": (start, entries[start : start + length])
        for split, entries in splits.items()
        for number, start in enumerate(range(0, len(entries), length))
    }


def _write_shards(
    out: Path,
    chunks: dict[str, tuple[int, list[Entry]]],
    rule: Rule,
    groups: tuple[str, ...],
    workers: int,
    progress: "_Progress",
) -> dict[str, ImageNote]:
    notes = {name: note for name in chunks if (note := read_note(out, name, ImageNote))}
    for name, note in notes.items():
        progress.add_finished(len(chunks[name][1]), note)
    todo = {name: chunk for name, chunk in chunks.items() if name not in notes}
    with made_samples((entry for _, entries in todo.values() for entry in entries), rule, workers) as made:
        for name, (start, entries) in todo.items():
            kept = _Kept(name, start, islice(made, len(entries)), rule.size, progress)
            shard = write_shard(out / f"{name}.tar", kept, suffix=rule.suffix, groups={name: i for i, name in enumerate(groups)})
            notes[name] = ImageNote(shard=shard, upscaled=kept.upscaled, skipped=tuple(kept.skipped))
            write_note(out, name, notes[name])
    return {name: notes[name] for name in chunks}


@dataclass
class _Kept:
    """Iterates over the usable images of a shard, numbered by position in the split, and counts the unusable ones."""

    shard: str
    first: int
    made: Iterable[Sample | Skipped]
    size: int
    progress: "_Progress"
    upscaled: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[int, Sample]]:
        for number, result in enumerate(self.made, self.first):
            if isinstance(result, Skipped):
                self.skipped.append({"shard": self.shard, "id": result.entry.id, "reason": result.reason})
                self.progress.skipped.append(self.skipped[-1])
            else:
                self.upscaled += min(result.width, result.height) < self.size
                yield number, result
            self.progress.add()


class _Progress:
    """Counts finished images and lists the unusable ones."""

    def __init__(self, total: int, max_bad: float, report: Report | None) -> None:
        self.total, self.allowed, self.report = total, max_bad * total, report
        self.done = 0
        self.skipped: list[dict[str, str]] = []

    def add(self, count: int = 1) -> None:
        self.done += count
        if self.report:
            self.report(self.done, self.total)

    def add_finished(self, count: int, note: ImageNote) -> None:
        self.skipped += note.skipped
        self.add(count)

    @property
    def has_too_many_unusable(self) -> bool:
        return len(self.skipped) > self.allowed

    def too_many_unusable(self) -> DataError:
        """The error that counts the unusable images by reason."""
        reasons = Counter(skipped["reason"] for skipped in self.skipped)
        listed = "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(3))
        return DataError(
            f"{len(self.skipped):,} of {self.total:,} images cannot be used, more than --max-bad allows: {listed}."
            f" The first one: {self.skipped[0]['id']}.",
            hint="skipped.jsonl lists all of them. Repair or remove them, or repeat the command with a larger --max-bad.",
        )


def _card(preparation: Preparation, listing: Listing, notes: dict[str, ImageNote], plan: dict[str, Any]) -> DatasetCard:
    rule = preparation.rule
    labels = [entry.label for entry in listing.entries if entry.label is not None]
    held_out = f"{preparation.val_fraction:g} of the images for validation, by a hash of seed and id"
    return DatasetCard(
        source=SourceNote(**plan["source"], images=len(listing.entries)),
        image_size=rule.size,
        crop=rule.crop,
        crop_rule=CROP_RULES[rule.crop],
        image_format=rule.image_format,
        seed=rule.seed,
        split_rule="the source's own" if listing.has_splits else held_out,
        train=tuple(note.shard for name, note in notes.items() if name.startswith("train")),
        val=tuple(note.shard for name, note in notes.items() if name.startswith("val")),
        num_classes=max(len(listing.class_names), max(labels, default=-1) + 1),
        class_names=listing.class_names,
        unlabelled=listing.unlabelled,
        group_names=listing.groups,
        skipped=sum(len(note.skipped) for note in notes.values()),
        upscaled=sum(note.upscaled for note in notes.values()),
        spectrum=None,
        plan=_hash(json.dumps(plan, sort_keys=True)).hex(),
    )


def _mean_spectrum(out: Path, card: DatasetCard) -> MeanSpectrum:
    """The spectrum for the card, computed in float64 and rounded to 6 digits, so that it does not depend on thread count."""
    images = ImageShards(out, card, "train")
    count = min(SPECTRUM_IMAGES, len(images))
    pieces = (range(start, min(start + 32, count)) for start in range(0, count, 32))
    parts = [spectrum_of(images.read(piece).images.to(torch.float64), PHYSICAL) for piece in pieces]
    power = torch.cat([part.power for part in parts]).mean(0)
    frequency = tuple(float(f"{value:.6g}") for value in parts[0].frequency.tolist())
    return MeanSpectrum(images=count, frequency=frequency, power=tuple(float(f"{value:.6g}") for value in power.tolist()))


def _write_skipped(out: Path, skipped: list[dict[str, str]]) -> None:
    path = out / "skipped.jsonl"
    if skipped:
        write_text(path, "".join(json.dumps(line) + "\n" for line in skipped))
    else:
        path.unlink(missing_ok=True)  # an earlier, interrupted run may have left one


def _finished(out: Path, plan: dict[str, Any]) -> DatasetCard:
    card = read_card(out)
    if card.plan != _hash(json.dumps(plan, sort_keys=True)).hex():
        raise DataError(
            f"{out} already holds {card.source.name} at {card.image_size} px, prepared from other data or with other settings.",
            hint="Choose another --out, or delete that folder first.",
        )
    verify(out, card)
    return card


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
