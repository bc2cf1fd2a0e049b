"""How many images the sections that decode may use: the definition sheet's numbers, or what a budget pays for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from smtool.pipelines.spectrum.subjects import NUM_KEPT, Subject

NUM_TRANSFER, NUM_SHIFTS = 16, 16
DECODES_LOW_PASS, DECODES_TRANSFER, PASSES_SHIFT = 15, 9, 3
SMALLER = (NUM_KEPT, 16, 8, 4, 2)
"""What is tried in turn when a budget is short: images of the low-pass curve, and at most so many of the other sections."""


@dataclass(frozen=True)
class Counts:
    """Images of each section, and the seconds they are expected to take (0 where nothing had to be known)."""

    low_pass: int
    transfer: int
    shifts: int
    seconds: float = 0.0

    @property
    def decodes(self) -> int:
        """Decoded images, over all sections."""
        return DECODES_LOW_PASS * self.low_pass + DECODES_TRANSFER * self.transfer + PASSES_SHIFT * self.shifts

    @classmethod
    def default(cls, limit: int) -> "Counts":
        """Those of the definition sheet, or all images where there are fewer."""
        return cls.of(min(NUM_KEPT, limit))

    @classmethod
    def of(cls, images: int) -> "Counts":
        return cls(images, min(NUM_TRANSFER, images), min(NUM_SHIFTS, images))


@torch.no_grad()
def affordable(subjects: Sequence[Subject], *, budget: float, limit: int) -> Counts:
    """The most images whose sections fit into `budget` seconds, by one timed decode of each subject; 2 where none fit.

    The choice hangs on seconds only, never on what was measured.
    """
    costs = [_pass_seconds(subject) for subject in subjects]
    counts = Counts.default(limit)
    for images in SMALLER:
        counts = Counts.of(min(images, limit))
        counts = replace(counts, seconds=sum(_section_seconds(counts, *cost) for cost in costs))
        if counts.seconds <= budget:
            break
    return counts


def _section_seconds(counts: Counts, encode: float, decode: float) -> float:
    """What the sections of one subject will take, from the seconds of one image's passes."""
    return counts.decodes * decode + PASSES_SHIFT * counts.shifts * encode


def _pass_seconds(subject: Subject) -> tuple[float, float]:
    """Seconds of encoding and of decoding one image: the average so far, and one decode after another that warmed it up."""
    encode, decode = subject.meter.encode, subject.meter.decode
    if not subject.codec.can_decode:
        return encode.seconds / encode.images, 0.0
    latents = subject.rings.first_latents[:1]
    subject.codec.decode(latents)
    before = decode.seconds
    subject.codec.decode(latents)
    return encode.seconds / encode.images, decode.seconds - before
