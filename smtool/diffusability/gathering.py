"""The pass that reads and encodes every image once, and the number of images that the decoding sections use.

Apart from the ring tables, memory does not grow with the number of images.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from smtool.data import ImageShards, validation_batches
from smtool.diffusability.inputs.accumulators import ImageRings, LatentRings
from smtool.diffusability.inputs.subjects import Size, Subject
from smtool.diffusability.sections.physical import Delta, headline_delta
from smtool.report.console import Console
from smtool.spectrum import PHYSICAL, Estimator
from smtool.spectrum.units import Units

BATCH = 16
REFERENCE_SIDE = 32
"""Size at which images alone get their REFERENCE curve: the latent side of f8 at 256 px."""
NUM_KEPT, NUM_TRANSFER, NUM_SHIFTS = 32, 16, 16
"""Number of images kept whole for the decoding sections, and the largest numbers used for band transfer and shift errors."""
LOOKS = (16, 64, 256, 1024)
"""Numbers of images after which a run with a budget checks its intervals. Checking after every image is optional stopping and
makes the intervals too short (spectrum.md#cost-and-intervals)."""
GOOD_HALF_WIDTH = 0.1
DECODES_LOW_PASS, DECODES_TRANSFER, PASSES_SHIFT = 15, 9, 3
SMALLER = (NUM_KEPT, 16, 8, 4, 2)
"""Numbers of images tried in turn when a budget is short, for the low-pass curve and as a limit for the other sections."""


@dataclass(frozen=True)
class Counts:
    """Images of each section, and the seconds they are expected to take (0 without a budget)."""

    low_pass: int
    transfer: int
    shifts: int
    seconds: float = 0.0

    @property
    def decodes(self) -> int:
        """Number of decoded images over all sections."""
        return DECODES_LOW_PASS * self.low_pass + DECODES_TRANSFER * self.transfer + PASSES_SHIFT * self.shifts

    @classmethod
    def of(cls, images: int) -> "Counts":
        """The default counts, or `images` where there are fewer (spectrum.md#cost-and-intervals)."""
        return cls(min(NUM_KEPT, images), min(NUM_TRANSFER, images), min(NUM_SHIFTS, images))


@dataclass
class Gathered:
    """Ring tables of the images and of every subject's latents, the unit of each image, and the first NUM_KEPT images.

    stopped: why the pass ended.
    """

    images: ImageRings
    latents: Sequence[LatentRings]
    units: Units
    shards: ImageShards
    counts: Counts
    stopped: str = "all requested images"
    kept: list[Tensor] = field(default_factory=list)

    def size(self, latents: LatentRings) -> Size:
        return latents.subject.latent_size(self.shards.image_size)

    @property
    def first_images(self) -> Tensor:
        return torch.cat(self.kept)


@torch.no_grad()
def gather(
    shards: ImageShards,
    subjects: Sequence[Subject],
    estimators: Sequence[Estimator],
    *,
    limit: int,
    budget: float | None,
    device: str,
    console: Console,
) -> Gathered:
    """Read, encode and accumulate up to `limit` images, batch by batch.

    budget: seconds for the whole report, None: no limit. After the first batch the time of the decoding sections is estimated and
    reserved; the pass ends when the rest is spent or when every delta is precise enough.
    """
    groups = shards.groups
    units = Units("photograph", groups) if groups else Units("image", [str(i) for i in range(len(shards))])
    own = (min(REFERENCE_SIDE, shards.image_size.height), min(REFERENCE_SIDE, shards.image_size.width))
    sizes = list(dict.fromkeys(subject.latent_size(shards.image_size) for subject in subjects)) or [own]
    latents = [LatentRings(subject, estimators, keep=NUM_KEPT) for subject in subjects]
    gathered = Gathered(ImageRings(estimators, sizes), latents, units.first(0), shards, Counts.of(limit))
    start, count = time.monotonic(), 0
    with console.progress("measuring spectra") as report:
        for batch in validation_batches(shards, batch=BATCH, limit=limit):
            pixels = batch.images.to(device)
            gathered.images.add(pixels)
            for rings in latents:
                rings.add(pixels, count)
            gathered.kept.append(pixels[:max(0, NUM_KEPT - count)])
            count += len(pixels)
            gathered.units = units.first(count)
            report(count, limit)
            if budget is not None:
                if count == len(pixels):
                    gathered.counts = affordable(latents, budget=0.5 * (budget - (time.monotonic() - start)), limit=limit)
                if reason := _enough(gathered, budget - gathered.counts.seconds - (time.monotonic() - start)):
                    gathered.stopped = reason
                    break
    return gathered


def _enough(gathered: Gathered, seconds_left: float) -> str:
    """The reason why a pass with a budget ends now, or "" to continue."""
    if seconds_left <= 0:
        return "the budget was spent"
    looks = len(gathered.units.groups) in LOOKS and gathered.latents and gathered.images.measures(PHYSICAL)
    if looks and all(_delta_is_known(latents, gathered) for latents in gathered.latents):
        return f"every delta is known to +-{GOOD_HALF_WIDTH}"
    return ""


def _delta_is_known(latents: LatentRings, gathered: Gathered) -> bool:
    found = headline_delta(gathered.images, latents, latents.stats("").std, gathered.size(latents), gathered.units)
    return isinstance(found, Delta) and found.half_width is not None and found.half_width <= GOOD_HALF_WIDTH


@torch.no_grad()
def affordable(latents: Sequence[LatentRings], *, budget: float, limit: int) -> Counts:
    """The largest counts whose sections fit into `budget` seconds, by one timed decode per subject; at least 2 images.

    The choice depends on the times only, not on measured values.
    """
    costs = [_pass_seconds(one) for one in latents]
    counts = Counts.of(limit)
    for images in SMALLER:
        counts = Counts.of(min(images, limit))
        expected = sum(counts.decodes * decode + PASSES_SHIFT * counts.shifts * encode for encode, decode in costs)
        counts = replace(counts, seconds=expected)
        if counts.seconds <= budget:
            break
    return counts


def _pass_seconds(latents: LatentRings) -> tuple[float, float]:
    """Seconds to encode one image (average so far) and to decode one (the second of two decodes; the first warms up)."""
    subject = latents.subject
    encode = subject.encoded.seconds / subject.encoded.images
    if not subject.codec.can_decode:
        return encode, 0.0
    first = latents.first_latents[:1]
    subject.decode(first)
    before = subject.decoded.seconds
    subject.decode(first)
    return encode, subject.decoded.seconds - before
