"""A score with its interval and its passport, and the table that shows scores."""

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
class Score:
    """value: None where it is infinite. half_width: of the 95 % interval, None where none can be given. notes say why."""

    name: str
    title: str
    better: Literal["higher", "lower"]
    value: float | None
    half_width: float | None
    notes: tuple[str, ...]
    passport: Passport

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
    """At least three significant digits, at least two decimals."""
    return 2 if abs(value) >= 1 else 3 if abs(value) >= 0.1 else 4
