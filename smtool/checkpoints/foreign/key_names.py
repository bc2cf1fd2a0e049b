"""All known families of names of a KL autoencoder's weights."""

from collections.abc import Iterable

from smtool.checkpoints.foreign.diffusers import DIFFUSERS
from smtool.checkpoints.foreign.family import Family
from smtool.checkpoints.foreign.ldm import LDM
from smtool.checkpoints.foreign.released import RELEASED

FAMILIES = (DIFFUSERS, LDM, RELEASED)


def family_of(names: Iterable[str]) -> Family | None:
    """The family whose mark is among these names (which begin with "encoder.", "decoder." etc.), or None."""
    known = set(names)
    return next((family for family in FAMILIES if family.mark in known), None)
