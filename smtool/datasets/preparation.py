"""From a source to a prepared folder: in parallel, restartable, and with the same bytes however it was run.

Finished shards are final. What a restart needs to know about them lies in `.unfinished/`, which goes away at the end.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from smtool.config import Section
from smtool.datasets.card import CARD_NAME, DatasetCard, MeanSpectrum, Shard, SourceNote, Split, read_card, verify
from smtool.datasets.entries import Entry, Sample, Skipped
from smtool.datasets.listing import Listing, list_entries
from smtool.datasets.shards import write_shard
from smtool.datasets.sources import Source
from smtool.datasets.transform import Rule
from smtool.datasets.workers import made_samples
from smtool.errors import DataError, RecipeError
from smtool.storage import write_json, write_text

UNFINISHED = ".unfinished"
IMAGES_PER_SHARD = 1024
DEFAULT_VAL_FRACTION = 0.05
_CROP_RULES = {
    "center": "2x2 box halving while the short side is at least twice the size, bicubic to the size, middle square (ADM)",
    "random": "as center, to a random short side of 1 to 1.25 sizes, then a random square, both seeded by the image's id (ADM)",
    "none": "the whole picture squeezed to the square, bilinear with antialiasing",
}
Report = Callable[[int, int], object]


class ShardNote(Section):
    """What is remembered of a finished shard until the card is written."""

    shard: Shard
    upscaled: int
    skipped: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Preparation:
    """Everything that decides the contents of a prepared folder."""

    source: Source
    rule: Rule
    val_fraction: float | None
    images_per_shard: int = IMAGES_PER_SHARD

    def plan(self) -> dict[str, Any]:
        return {
            "format": "smtool dataset 1",
            "source": [self.source.name, self.source.kind, self.source.digest()],
            "rule": asdict(self.rule),
            "val_fraction": self.val_fraction,
            "images_per_shard": self.images_per_shard,
        }


def prepare_images(
    preparation: Preparation, out: Path, *, workers: int = 1, max_bad: float = 0.01, report: Report | None = None
) -> DatasetCard:
    """Fill `out`, or finish what an interrupted run began there, or verify what a finished one left; returns the card.

    Two processes may call this for the same folder: the second waits and finds the work done.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _alone_in(out):
        plan = preparation.plan()
        if (out / CARD_NAME).is_file():
            card = _finished(out, plan)
        else:
            _begin(out, plan)
            card = _run(preparation, out, plan, workers=workers, max_bad=max_bad, report=report)
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
        return card


def _run(
    preparation: Preparation, out: Path, plan: dict[str, Any], *, workers: int, max_bad: float, report: Report | None
) -> DatasetCard:
    listing = list_entries(preparation.source, size=preparation.rule.size, scratch=out / UNFINISHED)
    splits = _split(listing, preparation)
    chunks = {
        f"{split}-{number:06d}": (start, entries[start : start + preparation.images_per_shard])
        for split, entries in splits.items()
        for number, start in enumerate(range(0, len(entries), preparation.images_per_shard))
    }
    progress = _Progress(sum(map(len, splits.values())), max_bad, report)
    notes = _write_shards(out, chunks, preparation.rule, workers, progress)
    card = _card(preparation, listing, splits, notes, plan)
    _write_skipped(out, notes)
    card = card.model_copy(update={"spectrum": _mean_spectrum(out, card)})
    write_json(out / CARD_NAME, card.model_dump(mode="json"))
    return card


def _write_shards(
    out: Path, chunks: dict[str, tuple[int, list[Entry]]], rule: Rule, workers: int, progress: "_Progress"
) -> dict[str, ShardNote]:
    notes = {name: note for name in chunks if (note := _note_of(out, name))}
    for name, note in notes.items():
        progress.add_finished(len(chunks[name][1]), note)
    todo = {name: chunk for name, chunk in chunks.items() if name not in notes}
    with made_samples((entry for _, entries in todo.values() for entry in entries), rule, workers) as made:
        for name, (start, entries) in todo.items():
            notes[name] = _write_one(out, name, start, islice(made, len(entries)), rule, progress)
            write_json(_note_path(out, name), notes[name].model_dump(mode="json"))
    return {name: notes[name] for name in chunks}


def _write_one(
    out: Path, name: str, start: int, made: Iterable[Sample | Skipped], rule: Rule, progress: "_Progress"
) -> ShardNote:
    upscaled, skipped = 0, []

    def kept() -> Iterator[tuple[str, Sample]]:
        nonlocal upscaled
        for number, result in enumerate(made, start):
            if isinstance(result, Skipped):
                skipped.append({"id": result.entry.id, "split": name.split("-")[0], "reason": result.reason})
                progress.add_bad(skipped[-1])
            else:
                upscaled += min(result.width, result.height) < rule.size
                yield f"{number:08d}", result
            progress.add()

    shard = write_shard(out / f"{name}.tar", kept(), rule.suffix)
    return ShardNote(shard=shard, upscaled=upscaled, skipped=tuple(skipped))


class _Progress:
    """Counts what is done, and stops the run once more than the allowed share is bad."""

    def __init__(self, total: int, max_bad: float, report: Report | None) -> None:
        self.total, self.allowed, self.report = total, max_bad * total, report
        self.done = self.bad = 0

    def add(self, count: int = 1) -> None:
        self.done += count
        if self.report:
            self.report(self.done, self.total)

    def add_bad(self, skipped: dict[str, str]) -> None:
        self.bad += 1
        if self.bad > self.allowed:
            raise DataError(
                f"{self.bad} of the first {self.done + 1} images cannot be used, more than --max-bad allows of {self.total}."
                f" The last: {skipped['id']}: {skipped['reason']}",
                hint="Mend or remove them, or allow more: the same command with a larger --max-bad goes on from here.",
            )

    def add_finished(self, count: int, note: ShardNote) -> None:
        self.add(count)
        for skipped in note.skipped:
            self.add_bad(skipped)


def _split(listing: Listing, preparation: Preparation) -> dict[Split, list[Entry]]:
    """Entries by split, each in the order of a seeded hash of the id: shuffled, and stable when images are added."""
    seed = preparation.rule.seed
    entries = sorted(
        listing.entries, key=lambda entry: hashlib.sha256(f"{seed}/{entry.id}".encode("utf-8", "surrogateescape")).digest()
    )
    if listing.has_splits:
        if preparation.val_fraction is not None:
            raise RecipeError("--split: this source brings its own validation images.", hint="Leave --split out to use them.")
        return {"train": [e for e in entries if e.split == "train"], "val": [e for e in entries if e.split == "val"]}
    count = round(_fraction(preparation) * len(entries))
    return {"train": entries[count:], "val": entries[:count]}


def _fraction(preparation: Preparation) -> float:
    return DEFAULT_VAL_FRACTION if preparation.val_fraction is None else preparation.val_fraction


def _card(
    preparation: Preparation,
    listing: Listing,
    splits: dict[Split, list[Entry]],
    notes: dict[str, ShardNote],
    plan: dict[str, Any],
) -> DatasetCard:
    rule, (name, kind, digest) = preparation.rule, plan["source"]
    labels = [entry.label for entry in listing.entries if entry.label is not None]
    groups = {entry.group for entry in listing.entries}
    own = listing.has_splits
    return DatasetCard(
        source=SourceNote(name=name, kind=kind, digest=digest, images=len(listing.entries)),
        image_size=rule.size,
        crop=rule.crop,
        crop_rule=_CROP_RULES[rule.crop],
        image_format=rule.image_format,
        seed=rule.seed,
        split_rule="the source's own"
        if own
        else f"{_fraction(preparation):g} of the images for validation, by a hash of seed and id",
        train=tuple(note.shard for name, note in notes.items() if name.startswith("train")),
        val=tuple(note.shard for name, note in notes.items() if name.startswith("val")),
        num_classes=max(len(listing.class_names), max(labels, default=-1) + 1),
        class_names=listing.class_names,
        photographs=None if None in groups else len(groups),
        skipped=sum(len(note.skipped) for note in notes.values()),
        upscaled=sum(note.upscaled for note in notes.values()),
        spectrum=None,
        plan=_digest(plan),
    )


def _mean_spectrum(out: Path, card: DatasetCard) -> MeanSpectrum | None:
    return None


def _write_skipped(out: Path, notes: dict[str, ShardNote]) -> None:
    lines = [json.dumps(skipped) + "\n" for note in notes.values() for skipped in note.skipped]
    if lines:
        write_text(out / "skipped.jsonl", "".join(lines))


def _finished(out: Path, plan: dict[str, Any]) -> DatasetCard:
    card = read_card(out)
    if card.plan != _digest(plan):
        raise DataError(
            f"{out} already holds {card.source.name} at {card.image_size} px, prepared from other data or with other settings.",
            hint="Choose another --out, or delete that folder first.",
        )
    verify(out, card)
    return card


def _begin(out: Path, plan: dict[str, Any]) -> None:
    """Start in an empty folder, or take up an interrupted run of the same plan."""
    path = out / UNFINISHED / "plan.json"
    if path.is_file():
        if json.loads(path.read_text()) != json.loads(json.dumps(plan)):
            raise DataError(
                f"{out} holds an unfinished preparation of other data or with other settings.",
                hint="Choose another --out, or delete that folder first.",
            )
        for aside in out.glob(".*.part"):  # left by a kill in the middle of a write
            aside.unlink()
        return
    if foreign := sorted(item.name for item in out.iterdir() if item.name != UNFINISHED):
        raise DataError(f"{out} is not empty ({foreign[0]}) and not a prepared folder.", hint="Choose another --out.")
    write_json(path, plan)


def _note_path(out: Path, name: str) -> Path:
    return out / UNFINISHED / f"{name}.json"


def _note_of(out: Path, name: str) -> ShardNote | None:
    """The note of a shard that an earlier run finished, if the shard is still there."""
    path = _note_path(out, name)
    if not path.is_file():
        return None
    note = ShardNote.model_validate_json(path.read_text())
    shard = out / note.shard.name
    return note if shard.is_file() and shard.stat().st_size == note.shard.bytes else None


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it is freed when this process ends, however it ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _digest(plan: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
