"""A score with its interval and its passport, and the table that shows scores."""

import math
from collections.abc import Sequence
from typing import Literal

from smtool.config import Config
from smtool.data.batches import Rounding
from smtool.features.protocol import ProtocolName
from smtool.inference.sampling import Sampling
from smtool.report.tables import Table, interval
from smtool.spectrum.jackknife import student_t_quantile

FRECHET = "frechet distance"
"""Metric of a Frechet distance, as passports say it."""


class AnyPassport(Config):
    """Everything that decides a score beside the quality of what is scored; scores compare where their passports are equal.

    extractor, extractor_sha256: the judging network and its weights, None for a formula. images: those that are scored;
    reference: those that they are compared with; None where nothing is compared. seed: of everything that is drawn at random.
    """

    metric: str
    extractor: str | None
    extractor_sha256: str | None
    resize: str
    codec: str
    protocol: ProtocolName
    num_images: int
    images_sha256: str
    num_reference: int | None
    reference_sha256: str | None
    seed: int


class Passport(AnyPassport):
    """Of a score of reconstructions. reference: the images that were reconstructed, unless others were asked for.

    pixels: "uint8", or "float" as they leave the decoder; rounding: how reconstructions became uint8, None for floats. Passports
    without these two were written before there was a choice.
    """

    num_reference: int
    reference_sha256: str
    pixels: Literal["uint8", "float"] = "uint8"
    rounding: Rounding | None = "nearest"
    posterior: Literal["mode", "sample"]


class SamplePassport(AnyPassport):
    """Of a score of generated images. sampling: how they were drawn, empty for images of unknown origin.

    num_reference: None also where a file of statistics does not say of how many images they are. seed: of subsets and of the
    bootstrap.
    """

    extractor: str
    extractor_sha256: str
    sampling: Sampling


class Score(Config):
    """value: None where it is infinite. half_width: of the 95 % interval, None where none can be given. notes say why."""

    name: str
    title: str
    better: Literal["higher", "lower"]
    value: float | None
    half_width: float | None
    notes: tuple[str, ...]
    passport: AnyPassport


class ReconstructionScore(Score):
    """Of reconstructions."""

    passport: Passport


class SampleScore(Score):
    """Of generated images."""

    passport: SamplePassport


def half_width(error: float, degrees: int) -> float:
    """Of the 95 % interval of a score with this standard error, known to so many degrees of freedom."""
    return student_t_quantile(0.975, degrees) * error


def score_table(scores: Sequence[Score], title: str) -> Table:
    """One row a score, with what may differ between their passports (not resize or codec where there is none); notes below."""
    columns = {
        "score": [f"{score.title} {'↑' if score.better == 'higher' else '↓'}" for score in scores],
        "value ± 95 %": [_value(score) for score in scores],
        "N": [f"{score.passport.num_images:,}" for score in scores],
        "weights": [(score.passport.extractor_sha256 or "-")[:8] for score in scores],
        "resize": [score.passport.resize for score in scores],
        "codec": [score.passport.codec.split()[0] for score in scores],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {"none"}}
    titles: dict[str, list[str]] = {}
    for score in scores:
        for note in score.notes:
            titles.setdefault(note, []).append(score.title)
    notes = [f"{', '.join(names)}: {note}." for note, names in titles.items()]
    return Table(title, tuple(columns), tuple(zip(*columns.values(), strict=True)), "\n".join(notes))


def _value(score: Score) -> str:
    """At least two decimals; otherwise three significant digits, or as many as the interval leaves a meaning."""
    if score.value is None:
        return "infinite"
    places = 2 - _magnitude(score.value) if abs(score.value) < 1 else 2
    if score.half_width:
        places = min(places, 1 - _magnitude(score.half_width))
    return interval(score.value, score.half_width, digits=min(max(places, 2), 7))


def _magnitude(value: float) -> int:
    """The power of ten of the leading digit; 0 for 0."""
    return math.floor(math.log10(abs(value))) if value else 0
