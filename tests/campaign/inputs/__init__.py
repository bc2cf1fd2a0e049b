"""The kinds of mutated inputs. A kind is a function (originals, generator, sandbox) -> Case; SHARES says how often each runs."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from campaign.inputs import archives, arrays, pictures, prepared, recipes, runs, tensor_files
from campaign.sandbox import Case, Sandbox

KINDS: dict[str, Callable[[Path, Random, Sandbox], Case]] = {
    "recipes": recipes.case,
    "tensor files": tensor_files.case,
    "prepared folders": prepared.case,
    "archives": archives.case,
    "pictures": pictures.case,
    "arrays and scores": arrays.case,
    "run folders": runs.case,
}
SHARES = {
    "recipes": 34,
    "tensor files": 18,
    "prepared folders": 16,
    "archives": 12,
    "pictures": 12,
    "arrays and scores": 6,
    "run folders": 2,
}


def chosen(number: int) -> str:
    """The kind of a case, by its number."""
    left = number % sum(SHARES.values())
    for kind, share in SHARES.items():
        if left < share:
            return kind
        left -= share
    raise AssertionError
