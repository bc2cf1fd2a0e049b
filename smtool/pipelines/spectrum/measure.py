"""The one pass of `smtool spectrum`, in which every image is read and encoded once; memory does not grow with the images."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from smtool.datasets import ImageShards, validation_batches
from smtool.pipelines.spectrum.budget import Counts, affordable
from smtool.pipelines.spectrum.decoding import exact_convolutions
from smtool.pipelines.spectrum.ring_tables import ImageRings, Size
from smtool.pipelines.spectrum.scores_physical import physical_delta_of
from smtool.pipelines.spectrum.subjects import NUM_KEPT, Subject
from smtool.pipelines.spectrum.units import Units
from smtool.report.console import Console
from smtool.spectrum import PHYSICAL, Estimator

BATCH = 16
REFERENCE_SIDE = 32
"""To which images alone are shrunk for their REFERENCE curve: the latent side of f8 at 256 px."""
LOOKS = (16, 64, 256, 1024)
"""Where a run with a budget may look at its intervals: to look after every image would make them too short (sheet, section 7)."""
GOOD_HALF_WIDTH = 0.1


@dataclass
class Pass:
    """What one pass has gathered: the rings of the images and of every subject's latents, and which unit each image is from.

    first_images: the first of them whole, up to NUM_KEPT. counts: how many of these every section may use.
    """

    images: ImageRings
    subjects: Sequence[Subject]
    units: Units
    shards: ImageShards
    counts: Counts
    stopped: str = "all images that were asked for"
    kept: list[Tensor] = field(default_factory=list)

    def size(self, subject: Subject) -> Size:
        return subject.latent_size(self.shards.image_size)

    @property
    def first_images(self) -> Tensor:
        return torch.cat(self.kept)


@torch.no_grad()
def measure(
    shards: ImageShards,
    subjects: Sequence[Subject],
    estimators: Sequence[Estimator],
    *,
    limit: int,
    budget: float | None,
    device: str,
    console: Console,
) -> Pass:
    """Read, encode and gather up to `limit` images, batch by batch; with a budget, in seconds, perhaps fewer.

    A budget is for the whole report: what the sections will need of it is set aside after the first batch.
    """
    groups = shards.groups
    units = Units("photograph", groups) if groups else Units("image", [str(i) for i in range(len(shards))])
    own = min(REFERENCE_SIDE, shards.image_size)
    sizes = list(dict.fromkeys(subject.latent_size(shards.image_size) for subject in subjects)) or [(own, own)]
    gathered = Pass(ImageRings(estimators, sizes), subjects, units.first(0), shards, Counts.default(limit))
    start, count = time.monotonic(), 0
    with console.progress("measuring spectra") as report, exact_convolutions():
        for batch in validation_batches(shards, batch=BATCH, limit=limit):
            pixels = batch.images.to(device)
            gathered.images.add(pixels)
            for subject in subjects:
                subject.rings.add(pixels, count)
            gathered.kept.append(pixels[:max(0, NUM_KEPT - count)])
            count += len(pixels)
            gathered.units = units.first(count)
            report(count, limit)
            if budget is not None:
                if count == len(pixels):
                    gathered.counts = affordable(subjects, budget=0.5 * (budget - (time.monotonic() - start)), limit=limit)
                if reason := _enough(gathered, budget - gathered.counts.seconds - (time.monotonic() - start)):
                    gathered.stopped = reason
                    break
    return gathered


def _enough(gathered: Pass, seconds_left: float) -> str:
    """Why a pass with a budget may end now, or ""."""
    if seconds_left <= 0:
        return "the budget was spent"
    looks = len(gathered.units.groups) in LOOKS and gathered.subjects and gathered.images.measures(PHYSICAL)
    if looks and all(_delta_is_known(subject, gathered) for subject in gathered.subjects):
        return f"every delta is known to +-{GOOD_HALF_WIDTH}"
    return ""


def _delta_is_known(subject: Subject, gathered: Pass) -> bool:
    std = subject.rings.stats("").std
    found = physical_delta_of(gathered.images, subject.rings, std, gathered.size(subject), gathered.units).get("half_width")
    return found is not None and found <= GOOD_HALF_WIDTH
