"""The sections of one autoencoder that look at its first images whole: transfer, low-pass curve, direction, health, pictures."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from smtool.pipelines.spectrum.decoding import reconstructed
from smtool.pipelines.spectrum.direction import direction
from smtool.pipelines.spectrum.health import health
from smtool.pipelines.spectrum.low_pass_curve import low_pass
from smtool.pipelines.spectrum.measure import Pass
from smtool.pipelines.spectrum.pictures import Picture, pictures
from smtool.pipelines.spectrum.subjects import Subject
from smtool.pipelines.spectrum.transfer import transfer
from smtool.report.console import Console


@dataclass
class Clock:
    """Seconds by section, in the order in which they were first entered."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[section] = self.seconds.get(section, 0.0) + time.monotonic() - start


@dataclass(frozen=True)
class Sections:
    """parts: by name, ready for JSON. pictures: by name."""

    parts: Mapping[str, Any]
    pictures: Mapping[str, Picture]


def sections_of(subject: Subject, gathered: Pass, clock: Clock, console: Console) -> Sections:
    """Everything that decodes, on as many of the first images as `gathered.counts` allows."""
    if not subject.codec.can_decode:
        return _sections_of(subject, gathered, clock)
    total = gathered.counts.decodes
    with console.progress(f"decoding with {subject.label}") as report, subject.meter.reporting(lambda done: report(done, total)):
        return _sections_of(subject, gathered, clock)


@torch.no_grad()
def _sections_of(subject: Subject, gathered: Pass, clock: Clock) -> Sections:
    """The whole latents are decoded once, for all sections."""
    codec, counts = subject.codec, gathered.counts
    images, stats = gathered.first_images[:counts.low_pass], subject.rings.stats(gathered.shards.digest)
    latents, units = subject.rings.first_latents[:len(images)], gathered.units.first(len(images))
    few = min(len(images), counts.transfer)
    with clock("reconstruction"):
        whole = reconstructed(codec, latents)
    with clock("low_pass"):
        curve = low_pass(codec, images, latents, whole, units)
    with clock("transfer"):
        moved = transfer(codec, latents[:few], None if whole is None else whole[:few])
    with clock("direction"):
        directed = direction(latents, stats, units)
    with clock("health"):
        checks = health(codec, images, subject.rings.posteriors, whole)
    with clock("pictures"):
        drawn = pictures(codec, images, latents, stats, whole, shown=curve.shown)
    return Sections({"transfer": moved, "low_pass": curve.section, "direction": directed, "health": checks}, drawn)
