"""The tables of scores on the page of `smtool quickstart`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from smtool.commands.evaluate.result import ReconstructionEvaluation
from smtool.commands.quickstart.generation import CROPS, RECONSTRUCTIONS, Generation
from smtool.evaluation.scores import Score
from smtool.report.tables import Table, interval

_TELLS_APART: Any = {"images_sha256": True, "sampling": {"checkpoint", "autoencoder"}}
"""What passports of two sets of samples differ in, though they were drawn and scored alike."""


@dataclass(frozen=True)
class Look:
    """One autoencoder on the page: its grid (uint8 (3, H, W)), its size, and its scores."""

    grid: Tensor
    num_parameters: int
    evaluation: ReconstructionEvaluation


def score_tables(looks: Mapping[str, Look]) -> list[Table]:
    """One table for scores whose passports agree between the autoencoders, a table of its own for each that does not."""
    names = list(looks)
    rows, made = [], []
    first = looks[names[0]].evaluation.scores
    for score in first:
        found = [looks[name].evaluation.scores[score] for name in names]
        row = (_title(found[0]), *(score_cell(entry.value, entry.half_width) for entry in found))
        if all(entry.passport == found[0].passport for entry in found):
            rows.append(row)
        else:
            made.append(Table(f"{found[0].title}: passports differ", ("score", *names), (row,)))
    counts = {entry.passport.num_images for entry in first.values()}
    notes = sorted({note for entry in first.values() for note in entry.notes})
    note = "; ".join([f"{max(counts)} validation images; 95% intervals", *notes])
    return [Table("Reconstruction scores (smtool eval)", ("score", *names), tuple(rows), note), *made]


def sample_table(generations: Mapping[str, Generation]) -> Table:
    """Scores of samples; below each distance, what real crops and their reconstructions score at the same number."""
    found = list(generations.values())
    rows = []
    for score, entry in found[0].evaluation.scores.items():
        scores = [one.evaluation.scores[score] for one in found]
        rows.append((_title(entry), *(score_cell(one.value, one.half_width) for one in scores)))
        for what in (RECONSTRUCTIONS, CROPS):
            if score in found[0].distances[what]:
                values = (score_cell(one.distances[what][score], None) for one in found)
                rows.append((f"\u2003{what}", *values))
    alike = all(_passports(one) == _passports(found[0]) for one in found)
    title = "Samples against training crops (smtool eval)" + ("" if alike else ": passports differ")
    return Table(title, ("score", *generations), tuple(rows), _passport(found[0]))


def score_cell(value: float | None, half_width: float | None) -> str:
    """A value with its interval, to the digits it deserves."""
    if value is None:
        return "infinite"
    size = abs(value)
    return interval(value, half_width, digits=2 if size >= 1 else 3 if size >= 0.1 else 4)


def _title(score: Score) -> str:
    return f"{score.title} ({score.better} is better)"


def _passports(one: Generation) -> list[dict[str, Any]]:
    """Of all scores, without what tells one set of samples from the other."""
    return [score.passport.model_dump(exclude=_TELLS_APART) for score in one.evaluation.scores.values()]


def _passport(one: Generation) -> str:
    """All that decides the scores beside the samples, in words."""
    passport = next(iter(one.evaluation.scores.values())).passport
    drawn, sampler = passport.sampling, passport.sampling.sampler
    assert sampler is not None and drawn.step is not None and passport.num_reference and passport.reference_sha256
    return (
        f"{passport.num_images} images of each kind against all {passport.num_reference:,} training crops "
        f"(sha256 {passport.reference_sha256[:8]}); 95 % intervals: how another draw of samples would scatter, not another "
        f"training. Extractor: {passport.extractor}, a small network of fixed random weights "
        f"(sha256 {passport.extractor_sha256[:8]}): this is not FID, and does not compare with it. "
        f"Resize {passport.resize}, codec {passport.codec}.\n"
        f"Samples: {sampler.kind}, {sampler.steps} steps, cfg {sampler.cfg_scale:g}, {drawn.weights} weights of step "
        f"{drawn.step:,}, seed {drawn.seed}.\n"
        "A Frechet distance (FD) of so few images is too large, by about what the training crops themselves score; the kernel "
        "distance (KD) has no such bias." + _notes(one)
    )


def _notes(one: Generation) -> str:
    """What `eval` says of more than one score; what it says of a single one holds for its value only."""
    said: dict[str, list[str]] = {}
    for score in one.evaluation.scores.values():
        for note in score.notes:
            said.setdefault(note, []).append(score.title)
    return "".join(f"\n{', '.join(titles)}: {note}." for note, titles in said.items() if len(titles) > 1)
