"""A score with its interval and its passport, and the table that shows scores."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from smtool.report.tables import Table, interval


@dataclass(frozen=True)
class Passport:
    """Everything that decides a score beside the quality of what is scored; scores compare where their passports are equal.

    extractor, extractor_sha256: the judging network and its weights, None for a formula. images: those that were reconstructed;
    reference: those that the score compares with, the same ones unless others were asked for.
    """

    metric: str
    extractor: str | None
    extractor_sha256: str | None
    resize: str
    codec: str
    posterior: str
    protocol: str
    num_images: int
    images_sha256: str
    num_reference: int
    reference_sha256: str
    seed: int


@dataclass(frozen=True)
class SamplePassport:
    """The same for a score of generated images.

    images: the samples; num_reference: None where a file's statistics do not say of how many images they are, or where nothing
    is compared with. seed: of subsets and of the bootstrap. sampling: how the samples were drawn: checkpoint, its step and kind
    of weights (average or last), sampler with steps and guidance, labels, seed; empty for images of unknown origin.
    """

    metric: str
    extractor: str
    extractor_sha256: str
    resize: str
    codec: str
    protocol: str
    num_images: int
    images_sha256: str
    num_reference: int | None
    reference_sha256: str | None
    seed: int
    sampling: dict[str, Any]


@dataclass(frozen=True)
class Score:
    """value: None where it is infinite. half_width: of the 95 % interval, None where none can be given. notes say why."""

    name: str
    title: str
    better: Literal["higher", "lower"]
    value: float | None
    half_width: float | None
    notes: tuple[str, ...]
    passport: Passport | SamplePassport

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def score_table(scores: Sequence[Score], title: str) -> Table:
    """One row a score, with what may differ between their passports; the notes stand below."""
    rows = tuple(
        (
            f"{score.title} {'↑' if score.better == 'higher' else '↓'}",
            "infinite" if score.value is None else interval(score.value, score.half_width, digits=_digits(score.value)),
            f"{score.passport.num_images:,}",
            (score.passport.extractor_sha256 or "-")[:8],
            score.passport.resize,
            score.passport.codec.split()[0],
        )
        for score in scores
    )
    titles: dict[str, list[str]] = {}
    for score in scores:
        for note in score.notes:
            titles.setdefault(note, []).append(score.title)
    notes = [f"{', '.join(names)}: {note}." for note, names in titles.items()]
    return Table(title, ("score", "value ± 95 %", "N", "weights", "resize", "codec"), rows, "\n".join(notes))


def _digits(value: float) -> int:
    """At least three significant digits, two to six decimals."""
    return 2 if abs(value) >= 1 else min(6, 2 - math.floor(math.log10(max(abs(value), 1e-9))))
