"""Crossing times after recolouring, a filter of the latents that needs no training (spectrum.md#recolouring)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from smtool.config import Config
from smtool.diffusability.sections.parts import Finding, Row, array, finding, numbers
from smtool.diffusability.sections.physical import Target
from smtool.spectrum.theory import recoloured_crossing

SMALLEST_CHANGE = 0.05
"""Of the logarithm of a gain. Latents that are closer to a law are not said to change by recolouring to it."""


class Recoloured(Config):
    """Crossing times after recolouring to a law (`latents.stats = "spectral"`), at equal total power.

    flatten: the law, the images times f^delta or "white". shift: gain of each ring, the s of the time shift of its crossing time.
    """

    flatten: float | Literal["white"]
    crossing: Row
    shift: Row

    @property
    def span(self) -> tuple[float, float]:
        """Crossing times of the lowest and of the highest ring."""
        return self.crossing[0] or 0.0, self.crossing[-1] or 0.0


def recoloured_crossings(power: Tensor, count: Tensor, target: Target) -> tuple[Recoloured, ...]:
    """Crossing times for the target's law, the images flattened by its delta, and for white latents.

    Without the target's law if the images have a ring without power.
    """
    flattened = torch.from_numpy(array(target.power))
    laws: dict[float | Literal["white"], Tensor] = {target.delta: flattened, "white": torch.ones_like(power)}
    found = []
    for flatten, law in laws.items():
        if bool((law > 0).all()):
            after = recoloured_crossing(power, law, count=count)
            found.append(Recoloured(flatten=flatten, crossing=numbers(after.crossing), shift=numbers(after.shift)))
    return tuple(found)


def recolouring_findings(recoloured: Sequence[Recoloured]) -> list[Finding]:
    """Finding on the laws whose recolouring changes the gain of a ring by more than SMALLEST_CHANGE."""
    moved = [one for one in recoloured if max(abs(math.log(s or 1.0)) for s in one.shift) > SMALLEST_CHANGE]
    if not moved:
        return []
    times = ", ".join(
        f"{last:.2f} and {first:.2f} with flatten = {law_name(one.flatten)}" for one in moved for first, last in [one.span]
    )
    said = f'Recolouring (latents.stats = "spectral", no training) changes these two times: to {times}.'
    values = {f"{end}_{law_name(one.flatten)}": t for one in moved for end, t in zip(("first", "last"), one.span, strict=True)}
    return [finding("recolouring", "note", said, **values)]


def law_name(flatten: float | Literal["white"]) -> str:
    """The law as text."""
    return flatten if isinstance(flatten, str) else f"{flatten:g}"
