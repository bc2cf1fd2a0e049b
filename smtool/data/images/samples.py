"""Webdataset shards: members of one key are a sample. Labels from .cls members, groups from .json, splits from shard names."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from smtool.data.images.archives import Members
from smtool.data.images.entries import Entry, Stored
from smtool.data.images.kinds import LeftOut, is_hidden, why_left_out
from smtool.data.images.splits import own_splits, split_word
from smtool.errors import DataError, RecipeError

KeyEnd = Literal["first-dot", "last-dot"]


@dataclass(frozen=True)
class SampleRule:
    """How members form samples. key_end: dot of the file name at which the key ends; member: rest of the image's name, or None.

    first-dot is webdataset's rule: a.b.png is member b.png of sample a. With last-dot it is member png of sample a.b.
    """

    key_end: KeyEnd = "first-dot"
    member: str | None = None

    def __post_init__(self) -> None:
        if self.key_end not in ("first-dot", "last-dot"):
            raise RecipeError(f"unknown end of sample keys {self.key_end!r}.", hint="Use first-dot or last-dot.")

    @property
    def given(self) -> bool:
        return self != BY_FIRST_DOT

    def parted(self, name: str) -> tuple[str, str]:
        """(key, member) of a file name; the key includes the folder, the member is in lower case."""
        folder, slash, file = name.rpartition("/")
        stem, dot, rest = file.partition(".") if self.key_end == "first-dot" else file.rpartition(".")
        return folder + slash + (stem if dot else file), (rest if dot else "").lower()


BY_FIRST_DOT = SampleRule()


@dataclass
class _Sample:
    images: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


def sample_listing(
    archives: Mapping[str, Members], rule: SampleRule
) -> tuple[tuple[Entry, ...], tuple[LeftOut, ...], str]:
    """The entries of shards by name, sorted by id; what is left out; why the images have no labels, or "".

    Raises DataError if a sample has several images and the rule does not choose one, if only some images have labels, and for a
    label that is no number.
    """
    splits, unused = own_splits({name: split_word(name) for name in archives}, "archives")
    reasons = {other.id: other.reason for other in unused}
    entries: list[Entry] = []
    left_out: list[LeftOut] = []
    for name, members in archives.items():
        prefix = f"{name}/" if len(archives) > 1 else ""
        left_out += [LeftOut(prefix + id, reason) for id, reason in members.left_out]
        if name in reasons:
            left_out += [LeftOut(prefix + id, reasons[name]) for id in members.places]
            continue
        found, others = _entries(name, members.places, rule, prefix, splits.get(name))
        entries += found
        left_out += [LeftOut(prefix + id, reason) for id, reason in others]
    bare = [entry.id for entry in entries if entry.label is None]
    unlabelled = _unused_labels(archives, rule) if bare else ""
    if 0 < len(bare) < len(entries):
        raise DataError(
            f"{len(bare):,} of {len(entries):,} images have no .cls member, the first {bare[0]}.",
            hint="Add the missing members, or remove all .cls members to prepare the images without labels."
            + (" Or let sample names end at the last dot: --sample-key last-dot." if "last-dot" in unlabelled else ""),
        )
    return tuple(sorted(entries, key=lambda entry: entry.id)), tuple(sorted(left_out)), unlabelled


def _entries(
    archive: str, places: Mapping[str, Stored], rule: SampleRule, prefix: str, split: str | None
) -> tuple[list[Entry], list[LeftOut]]:
    samples: dict[str, _Sample] = defaultdict(_Sample)
    others: list[LeftOut] = []
    for name, place in places.items():
        key, member = rule.parted(name)
        if member in ("cls", "json") and not is_hidden(name):
            samples[key].notes[member] = name
        elif reason := why_left_out(name, place):
            others.append(LeftOut(name, reason))
        elif rule.member is not None and member != rule.member.lower():
            others.append(LeftOut(name, f"not the member {rule.member} of its sample"))
        else:
            samples[key].images.append(name)
    _refuse_several(archive, samples, rule)
    others += [LeftOut(note, "belongs to no image") for s in samples.values() if not s.images for note in s.notes.values()]
    entries = []
    for key, sample in samples.items():
        for name in sample.images:
            label = _label(archive, key, places[sample.notes["cls"]]) if "cls" in sample.notes else None
            group = _group(places[sample.notes["json"]]) if "json" in sample.notes else None
            entries.append(Entry(prefix + name, places[name], label, split, group))
    return entries, others


def _refuse_several(archive: str, samples: Mapping[str, _Sample], rule: SampleRule) -> None:
    several = [(key, sample.images) for key, sample in samples.items() if len(sample.images) > 1]
    if not several:
        return
    key, images = several[0]
    members = [rule.parted(name)[1] for name in images]
    hint = f"Choose one of them: --member {members[0]}"
    if rule.key_end == "first-dot" and any("." in member for member in members):
        hint += "; or, if each is a sample of its own, let its name end at the last dot: --sample-key last-dot"
    raise DataError(
        f"{archive}: {len(several):,} of {len(samples):,} samples hold several images,"
        f" the first {key} with {', '.join(members[:4])}.",
        hint=hint,
    )


def _unused_labels(archives: Mapping[str, Members], rule: SampleRule) -> str:
    """Why .cls members do not label images, "" where there are none: for names with dots, the rule that uses them."""
    names = [name for members in archives.values() for name in members.places if name.endswith(".cls") and not is_hidden(name)]
    if not names:
        return ""
    dotted = [name for name in names if rule.parted(name)[1] != "cls"]
    first = (dotted or names)[0]
    are = "member is" if len(names) == 1 else "members are"
    why = "because no image has its name"
    if dotted:
        why = "because a sample's name ends at its first dot; --sample-key last-dot uses them"
    return f"{len(names):,} .cls {are} not used, the first {first}, {why}"


def _label(archive: str, key: str, place: Stored) -> int:
    text = place.read().decode("ascii", "replace").strip()
    if not re.fullmatch(r"\d{1,9}", text):
        raise DataError(f"{archive}: {key}.cls holds {text[:40]!r}, not a class number.")
    return int(text)


def _group(place: Stored) -> str | None:
    try:
        note = json.loads(place.read())
    except (ValueError, RecursionError):
        return None
    group = note.get("group") if isinstance(note, dict) else None
    return group if isinstance(group, str) else None
