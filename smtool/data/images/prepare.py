"""Prepare a source as a folder of shards: in parallel, resumable, with bytes that do not depend on workers or interruptions."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from smtool.data.images.card import CARD_NAME, UNFINISHED, DatasetCard, SourceNote, Split, is_prepared, read_card, verify
from smtool.data.images.columns import AUTO, LabelRule
from smtool.data.images.decoding import WHITE
from smtool.data.images.entries import Entry
from smtool.data.images.jpeg_price import jpeg_price
from smtool.data.images.listing import Listing, list_entries
from smtool.data.images.mean_spectrum import mean_spectrum
from smtool.data.images.progress import ImageNote, Kept, Progress, Report, without_numbers
from smtool.data.images.samples import BY_FIRST_DOT, SampleRule
from smtool.data.images.shards import write_shard
from smtool.data.images.sources import Source
from smtool.data.images.transform import Rule
from smtool.data.images.unfinished import alone_in, begin, end, read_note, refuse, write_note
from smtool.data.images.workers import made_samples
from smtool.errors import DataError
from smtool.storage import printable, write_json, write_text

IMAGES_PER_SHARD = 1024
VAL_FRACTION = 0.05
MAX_BAD = 0.01
"""Largest fraction of unusable images that is not an error."""
_EARLIER = {"icc": "ignore", "white": WHITE, "mode": "RGB", "upsample": "bicubic", **asdict(BY_FIRST_DOT), **asdict(AUTO)}


@dataclass(frozen=True)
class Preparation:
    """All settings that determine the contents of a prepared folder. val_fraction is unused if the source has its own splits."""

    source: Source
    rule: Rule
    val_fraction: float = VAL_FRACTION
    images_per_shard: int = IMAGES_PER_SHARD
    samples: SampleRule = BY_FIRST_DOT
    labels: LabelRule = AUTO

    @property
    def folder_name(self) -> str:
        """Default name of the prepared folder: NAME-SIZE, or NAME-SIZE-MODE for other modes than RGB."""
        return f"{self.source.name}-{self.rule.size}" + ("" if self.rule.mode == "RGB" else f"-{self.rule.mode}")

    def plan(self) -> dict[str, Any]:
        """All that decides the bytes. Settings at the value that earlier versions had without naming it are left out."""
        rule = asdict(self.rule)
        reading, upsample = rule.pop("reading"), rule.pop("upsample")
        rule["size"] = self.rule.size.stored
        later = {**reading, **asdict(self.samples), **asdict(self.labels), "upsample": upsample}
        if self.source.builtin:
            later = {"mode": reading["mode"]}
        return {
            "format": "smtool dataset 1",
            "source": {
                "name": printable(self.source.name),
                "kind": self.source.kind,
                "digest": self.source.digest(self.labels),
            },
            "rule": rule,
            "val_fraction": self.val_fraction,
            "images_per_shard": self.images_per_shard,
            **{name: value for name, value in later.items() if value != _EARLIER[name]},
        }


def prepare_images(
    preparation: Preparation, out: Path, *, workers: int, max_bad: float = MAX_BAD, report: Report | None = None
) -> DatasetCard:
    """Prepare images in `out`; resume an interrupted run, or verify a finished one. Returns the card.

    Two processes may call this for the same folder: the second waits, then verifies.
    """
    with alone_in(out):
        plan = preparation.plan()
        if is_prepared(out):
            card = _finished(out, plan)
        else:
            begin(out, plan)
            card = _run(preparation, out, plan, workers, max_bad, report)
        end(out)
        return card


def _run(
    preparation: Preparation, out: Path, plan: dict[str, Any], workers: int, max_bad: float, report: Report | None
) -> DatasetCard:
    listing = list_entries(
        preparation.source,
        size=max(preparation.rule.size),
        scratch=out / UNFINISHED,
        samples=preparation.samples,
        labels=preparation.labels,
    )
    splits = _split(listing, preparation)
    progress = Progress(sum(map(len, splits.values())), max_bad, report)
    try:
        notes = _write_shards(
            out, _chunks(splits, preparation.images_per_shard), preparation.rule, listing.groups, workers, progress
        )
    finally:
        others = [{"id": printable(other.id), "reason": other.reason} for other in listing.left_out]
        _write_skipped(out, [*progress.skipped, *others])
    if progress.has_too_many_unusable:
        refuse(out)
        raise progress.too_many_unusable()
    card = _card(preparation, listing, notes, plan)
    if not card.count("train"):
        raise DataError(
            f"{out}: none of {len(listing.entries)} images is usable for training.", hint="Its skipped.jsonl gives the reasons."
        )
    price = jpeg_price(splits["train"], preparation.rule)
    card = card.model_copy(update={"spectrum": mean_spectrum(out, card), "jpeg": price})
    write_json(out / CARD_NAME, card.model_dump(mode="json"))
    return card


def _split(listing: Listing, preparation: Preparation) -> dict[Split, list[Entry]]:
    """Entries by split, sorted by a seeded hash of the id: shuffled, and the order is stable when images are added."""
    seed = preparation.rule.seed
    entries = sorted(listing.entries, key=lambda entry: _hash(f"{seed}/{entry.id}"))
    if listing.has_splits:
        return {"train": [e for e in entries if e.split == "train"], "val": [e for e in entries if e.split == "val"]}
    count = round(preparation.val_fraction * len(entries)) or min(1, preparation.val_fraction > 0)
    count = min(count, len(entries) - 1)  # one image at least is for training
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
    progress: Progress,
) -> dict[str, ImageNote]:
    notes = {name: note for name in chunks if (note := read_note(out, name, ImageNote))}
    for name, note in notes.items():
        progress.add_finished(len(chunks[name][1]), note)
    todo = {name: chunk for name, chunk in chunks.items() if name not in notes}
    with made_samples((entry for _, entries in todo.values() for entry in entries), rule, workers) as made:
        for name, (start, entries) in todo.items():
            kept = Kept(name, start, islice(made, len(entries)), rule.size, progress)
            shard = write_shard(out / f"{name}.tar", kept, suffix=rule.suffix, groups={name: i for i, name in enumerate(groups)})
            notes[name] = kept.note(shard)
            write_note(out, name, notes[name])
    return {name: notes[name] for name in chunks}


def _card(preparation: Preparation, listing: Listing, notes: dict[str, ImageNote], plan: dict[str, Any]) -> DatasetCard:
    rule = preparation.rule
    labels = [entry.label for entry in listing.entries if entry.label is not None]
    skipped = [line["reason"] for note in notes.values() for line in note.skipped]
    held_out = f"{preparation.val_fraction:g} of the images for validation, by a hash of seed and id"
    return DatasetCard(
        source=SourceNote(**plan["source"], images=len(listing.entries)),
        image_size=rule.size,
        mode=rule.mode,
        crop=rule.crop,
        crop_rule=rule.crop_rule,
        image_format=rule.image_format,
        seed=rule.seed,
        split_rule="the source's own" if listing.has_splits else held_out,
        train=tuple(note.shard for name, note in notes.items() if name.startswith("train")),
        val=tuple(note.shard for name, note in notes.items() if name.startswith("val")),
        num_classes=max(len(listing.class_names), max(labels, default=-1) + 1),
        class_names=tuple(map(printable, listing.class_names)),
        unlabelled=printable(listing.unlabelled),
        group_names=tuple(map(printable, listing.groups)),
        skipped=len(skipped),
        left_out=_counted([without_numbers(reason) for reason in skipped] + [other.reason for other in listing.left_out]),
        upscaled=sum(note.upscaled for note in notes.values()),
        remarks=dict(sorted(sum((Counter(note.remarks) for note in notes.values()), Counter()).items())),
        icc="ignore" if preparation.source.builtin else rule.reading.icc,
        white=rule.reading.white,
        upsample=rule.upsample,
        spectrum=None,
        plan=_hash(json.dumps(plan, sort_keys=True)).hex(),
    )


def _counted(reasons: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0])))


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
            f"{out} already holds {card.source.name} at {card.image_size.words}, "
            "prepared from other data or with other settings.",
            hint=f"Choose another --out, or delete that folder first.{_before_profiles(card, plan)}",
        )
    verify(out, card)
    return card


def _before_profiles(card: DatasetCard, plan: dict[str, Any]) -> str:
    """The advice for a folder of an earlier version, which differs from the plan in the color profiles only."""
    earlier = {name: value for name, value in plan.items() if name != "icc"}
    same = card.plan == _hash(json.dumps(earlier, sort_keys=True)).hex()
    return " Its color profiles were ignored: --icc ignore keeps it as it is." if same else ""


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
