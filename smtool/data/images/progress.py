"""The progress of `prepare`: usable images of each shard, and a list of those that cannot be used."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pydantic import Field

from smtool.data.images.card import Shard
from smtool.data.images.entries import Sample, Skipped
from smtool.data.images.unfinished import ShardNote
from smtool.errors import DataError
from smtool.image_shape import ImageSize
from smtool.storage import printable

Report = Callable[[int, int], object]


class ImageNote(ShardNote):
    """A finished shard, and counts of its images."""

    upscaled: int
    skipped: tuple[dict[str, str], ...]
    remarks: dict[str, int] = Field(default_factory=dict)


class Progress:
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
        reasons = Counter(without_numbers(skipped["reason"]) for skipped in self.skipped)
        listed = "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(3))
        return DataError(
            f"{len(self.skipped):,} of {self.total:,} images cannot be used, more than --max-bad allows: {listed}."
            f" The first one: {self.skipped[0]['id']}.",
            hint="skipped.jsonl lists all of them. Repair or remove them, or repeat the command with a larger --max-bad.",
        )


@dataclass
class Kept:
    """Iterates over the usable images of a shard, numbered by position in the split, and counts the unusable ones."""

    shard: str
    first: int
    made: Iterable[Sample | Skipped]
    size: ImageSize
    progress: Progress
    upscaled: int = 0
    remarks: Counter[str] = field(default_factory=Counter)
    skipped: list[dict[str, str]] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[int, Sample]]:
        for number, result in enumerate(self.made, self.first):
            if isinstance(result, Skipped):
                self.skipped.append({"shard": self.shard, "id": printable(result.entry.id), "reason": result.reason})
                self.progress.skipped.append(self.skipped[-1])
            else:
                self.upscaled += result.height < self.size.height or result.width < self.size.width
                self.remarks.update(result.remarks)
                yield number, result
            self.progress.add()

    def note(self, shard: Shard) -> ImageNote:
        """The note of the finished shard."""
        return ImageNote(shard=shard, upscaled=self.upscaled, skipped=tuple(self.skipped), remarks=dict(self.remarks))


def without_numbers(reason: str) -> str:
    """A reason in which numbers are N: so that decoding errors that differ in a number of bytes are counted together."""
    return re.sub(r"\d+", "N", reason) if ": " in reason else reason
