"""Whose names the weights of a KL autoencoder have, of the families that are known."""

from collections.abc import Iterable

from smtool.checkpoints.foreign.diffusers import DIFFUSERS
from smtool.checkpoints.foreign.family import Family
from smtool.checkpoints.foreign.ldm import LDM
from smtool.checkpoints.foreign.released import RELEASED

FAMILIES = (DIFFUSERS, LDM, RELEASED)


def family_of(names: Iterable[str]) -> Family | None:
    """The family whose mark is among these names, which begin with "encoder.", "decoder." and so on."""
    known = set(names)
    return next((family for family in FAMILIES if family.mark in known), None)
