"""Scores with interval and passport, and the table that shows them."""

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
"""Name of the Frechet distance in passports."""


class AnyPassport(Config):
    """Everything that decides a score besides the quality of the images; scores are comparable if their passports are equal.

    extractor, extractor_sha256: the judging network and its weights, None for a formula. num_images, images_sha256: the scored
    images; num_reference, reference_sha256: the images they are compared with, None without a comparison. seed: of all random
    draws. image_sizes, reference_sizes: height x width, with counts if there are several; "" if unknown. channels: what the score
    saw of the channels. warning: if images differ in size, what was done. Older files lack these four keys; the defaults apply.
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
    image_sizes: str = ""
    reference_sizes: str = ""
    channels: str = "RGB"
    warning: str = ""


class Passport(AnyPassport):
    """Passport of a score of reconstructions. The reference is the reconstructed images, unless another was requested.

    pixels: "uint8", or "float", the decoder's output; rounding: how reconstructions were converted to uint8, None for floats.
    Older files lack these two keys; the defaults apply to them.
    """

    num_reference: int
    reference_sha256: str
    pixels: Literal["uint8", "float"] = "uint8"
    rounding: Rounding | None = "nearest"
    posterior: Literal["mode", "sample"]


class SamplePassport(AnyPassport):
    """Passport of a score of generated images. sampling: how they were drawn, empty for images of unknown origin.

    num_reference: also None if a file of moments does not state its number of images. seed: of subsets and of the bootstrap.
    """

    extractor: str
    extractor_sha256: str
    sampling: Sampling


class Score(Config):
    """A score. value: None if it is infinite; half_width: of the 95 % interval, None if there is none; notes give the reasons."""

    name: str
    title: str
    better: Literal["higher", "lower"]
    value: float | None
    half_width: float | None
    notes: tuple[str, ...]
    passport: AnyPassport


class ReconstructionScore(Score):
    """A score of reconstructions."""

    passport: Passport


class SampleScore(Score):
    """A score of generated images."""

    passport: SamplePassport


def half_width(error: float, degrees: int) -> float:
    """Half-width of the 95 % interval of a score with this standard error and degrees of freedom (Student's t)."""
    return student_t_quantile(0.975, degrees) * error


def score_table(scores: Sequence[Score], title: str) -> Table:
    """One row per score, with the parts of the passports that may differ (without a resize or codec column of only "none"), and
    the notes below."""
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
    """The value with two to seven decimals: enough for three significant digits, or for two digits of the half-width."""
    if score.value is None:
        return "infinite"
    places = 2 - _magnitude(score.value) if abs(score.value) < 1 else 2
    if score.half_width:
        places = min(places, 1 - _magnitude(score.half_width))
    return interval(score.value, score.half_width, digits=min(max(places, 2), 7))


def _magnitude(value: float) -> int:
    """The power of ten of the leading digit; 0 for 0."""
    return math.floor(math.log10(abs(value))) if value else 0
