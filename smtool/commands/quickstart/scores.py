"""The tables of scores on the page of `smtool quickstart`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from smtool.commands.quickstart.generation import CROPS, RECONSTRUCTIONS, Generation
from smtool.report.tables import Table, interval

SAMPLED = ("checkpoint", "autoencoder")


@dataclass(frozen=True)
class Look:
    """One autoencoder on the page: its grid (uint8 (3, H, W)), its size, and what `evaluate` returned."""

    grid: Tensor
    num_parameters: int
    scores: Mapping[str, Any]


def score_tables(looks: Mapping[str, Look]) -> list[Table]:
    """One table for scores whose passports agree between the autoencoders, a table of its own for each that does not."""
    names = list(looks)
    rows, made = [], []
    for score in looks[names[0]].scores["scores"]:
        found = [looks[name].scores["scores"][score] for name in names]
        row = (_title(found[0]), *(score_cell(entry) for entry in found))
        if all(entry["passport"] == found[0]["passport"] for entry in found):
            rows.append(row)
        else:
            made.append(Table(f"{found[0]['title']}: passports differ", ("score", *names), (row,)))
    entries = looks[names[0]].scores["scores"].values()
    counts = {entry["passport"]["num_images"] for entry in entries}
    notes = sorted({note for entry in entries for note in entry["notes"]})
    note = "; ".join([f"{max(counts)} validation images; 95% intervals", *notes])
    return [Table("Reconstruction scores (smtool eval)", ("score", *names), tuple(rows), note), *made]


def sample_table(generations: Mapping[str, Generation]) -> Table:
    """Scores of samples; below each distance, what real crops and their reconstructions score at the same number."""
    found = list(generations.values())
    rows = []
    for score, entry in found[0].scores["scores"].items():
        rows.append((_title(entry), *(score_cell(one.scores["scores"][score]) for one in found)))
        for what in (RECONSTRUCTIONS, CROPS):
            if score in found[0].distances[what]:
                values = (score_cell({"value": one.distances[what][score], "half_width": None}) for one in found)
                rows.append((f"\u2003{what}", *values))
    alike = all(_passports(one) == _passports(found[0]) for one in found)
    title = "Samples against training crops (smtool eval)" + ("" if alike else ": passports differ")
    return Table(title, ("score", *generations), tuple(rows), _passport(found[0]))


def score_cell(entry: Mapping[str, Any]) -> str:
    """A value with its interval, to the digits it deserves."""
    if entry["value"] is None:
        return "infinite"
    size = abs(entry["value"])
    return interval(entry["value"], entry["half_width"], digits=2 if size >= 1 else 3 if size >= 0.1 else 4)


def _title(entry: Mapping[str, Any]) -> str:
    return f"{entry['title']} ({'higher' if entry['better'] == 'higher' else 'lower'} is better)"


def _passports(one: Generation) -> list[dict[str, Any]]:
    """Of all scores, without what tells one set of samples from the other."""
    passports = [dict(entry["passport"]) for entry in one.scores["scores"].values()]
    for passport in passports:
        passport.pop("images_sha256")
        passport["sampling"] = {key: value for key, value in passport["sampling"].items() if key not in SAMPLED}
    return passports


def _passport(one: Generation) -> str:
    """All that decides the scores beside the samples, in words."""
    passport = next(iter(one.scores["scores"].values()))["passport"]
    drawn = passport["sampling"]
    sampler = drawn["sampler"]
    return (
        f"{passport['num_images']} images of each kind against all {passport['num_reference']:,} training crops "
        f"(sha256 {passport['reference_sha256'][:8]}); 95 % intervals: how another draw of samples would scatter, not another "
        f"training. Extractor: {passport['extractor']}, a small network of fixed random weights "
        f"(sha256 {passport['extractor_sha256'][:8]}): this is not FID, and does not compare with it. "
        f"Resize {passport['resize']}, codec {passport['codec']}.\n"
        f"Samples: {sampler['kind']}, {sampler['steps']} steps, cfg {sampler['cfg_scale']:g}, {drawn['weights']} weights of step "
        f"{drawn['step']:,}, seed {drawn['seed']}.\n"
        "A Frechet distance (FD) of so few images is too large, by about what the training crops themselves score; the kernel "
        "distance (KD) has no such bias." + _notes(one)
    )


def _notes(one: Generation) -> str:
    """What `eval` says of more than one score; what it says of a single one holds for its value only."""
    said: dict[str, list[str]] = {}
    for entry in one.scores["scores"].values():
        for note in entry["notes"]:
            said.setdefault(note, []).append(entry["title"])
    return "".join(f"\n{', '.join(titles)}: {note}." for note, titles in said.items() if len(titles) > 1)
