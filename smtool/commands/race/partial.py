"""Judges of a race that a racer learned from: a network in a loss, or a teacher. Scores from them favour that racer."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from smtool.checkpoints.learned_from import learned_from
from smtool.errors import SmtoolError
from smtool.evaluation.partiality import Lessons, lessons_of_transformer, partial_judges
from smtool.recipe.race import Entry
from smtool.storage import read_metadata
from smtool.tokenizers import identify


def planned_warnings(entries: Sequence[Entry], features: Sequence[str]) -> list[str]:
    """A warning for each extractor that a racer will learn from, by its recipes and checkpoints, before anything is trained."""
    return _sentences(
        features,
        (
            (entry.name, {
                "is the transformer's teacher": entry.transformer.tables.learned_from(),
                "is in the autoencoder's loss": _of_autoencoder(entry),
            })
            for entry in entries
        ),
    )  # fmt: skip


def found_warnings(checkpoints: Iterable[tuple[str, Path]], features: Sequence[str]) -> list[str]:
    """A warning for each extractor that a racer learned from. checkpoints: (racer, transformer); missing files are left out."""
    return _sentences(
        features,
        ((racer, lessons_of_transformer(read_metadata(path))) for racer, path in checkpoints if path.is_file()),
    )


def _sentences(features: Sequence[str], racers: Iterable[tuple[str, Lessons]]) -> list[str]:
    names = {name: name for name in features}
    return sorted({f"{racer}: {said}." for racer, lessons in racers for said in partial_judges(names, lessons).values()})


def _of_autoencoder(entry: Entry) -> Collection[str]:
    if entry.autoencoder is not None:
        return entry.autoencoder.tables.learned_from()
    try:
        return learned_from(identify(entry.racer.checkpoint).metadata)
    except SmtoolError:
        return ()      # a broken checkpoint fails by itself
