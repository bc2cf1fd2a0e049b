"""The pass that reads and encodes every image once.

Apart from the ring tables, memory does not grow with the number of images.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from smtool.data import ImageShards, validation_batches
from smtool.diffusability.inputs.accumulators import ImageRings, LatentRings
from smtool.diffusability.inputs.pairs import LatentPairs, unlike_latents
from smtool.diffusability.inputs.subjects import Size, Subject
from smtool.diffusability.plan import Plan
from smtool.diffusability.protocol import FEWEST_ENCODED, NUM_KEPT, Protocol
from smtool.diffusability.sections.parts import Reason
from smtool.diffusability.sections.physical import Delta, headline_delta
from smtool.image_shape import ImageSize
from smtool.report.console import Console
from smtool.spectrum import PHYSICAL, Estimator
from smtool.spectrum.units import Units

BATCH = 16
REFERENCE_SIDE = 32
"""Size at which images alone get their REFERENCE curve: the latent side of f8 at 256 px."""
LOOKS = (16, 64, 256, 1024)
"""Numbers of images after which a run with a budget checks its intervals. Checking after every image is optional stopping and
makes the intervals too short (spectrum.md#cost-and-intervals)."""
GOOD_HALF_WIDTH = 0.1
ALL_KNOWN = f"every delta is known to +-{GOOD_HALF_WIDTH}"


@dataclass
class Gathered:
    """Ring tables of the images and of every subject's latents, the unit of each image, and the first NUM_KEPT images.

    protocol: what is measured of them; full: the full protocol; stopped: why the pass ended. pairs: by label, the latents beside
    those of the reference, or why there are none; {} without a second autoencoder.
    """

    images: ImageRings
    latents: Sequence[LatentRings]
    units: Units
    shards: ImageShards
    protocol: Protocol
    full: Protocol
    stopped: str = "all requested images"
    kept: list[Tensor] = field(default_factory=list)
    pairs: Mapping[str, LatentPairs | Reason] = field(default_factory=dict)

    def size(self, latents: LatentRings) -> Size:
        return latents.subject.latent_size(self.protocol.size)

    @property
    def cuts(self) -> list[str]:
        """What was left out to keep a time limit. A pass that ends early because it is precise enough is no cut."""
        enough = self.stopped == ALL_KNOWN
        return self.protocol.cuts_from(replace(self.full, encoded=self.protocol.encoded) if enough else self.full)

    @property
    def first_images(self) -> Tensor:
        return torch.cat(self.kept)


@torch.no_grad()
def gather(
    shards: ImageShards,
    subjects: Sequence[Subject],
    estimators: Sequence[Estimator],
    plan: Plan,
    *,
    device: str,
    console: Console,
    reference: str | None = None,
) -> Gathered:
    """Read, encode and accumulate the images of the plan's protocol, batch by batch.

    With a time limit, the pass ends when the time not reserved for the decoding sections is spent; with a budget also when every
    delta is precise enough. At its end, the decoding sections are planned again with the time that encoding took.
    reference: label of the subject whose latents the others' are compared with; None for no comparison.
    """
    units, protocol = units_of(shards), plan.protocol
    own = (min(REFERENCE_SIDE, protocol.size.height), min(REFERENCE_SIDE, protocol.size.width))
    sizes = list(dict.fromkeys(subject.latent_size(protocol.size) for subject in subjects)) or [own]
    latents = [LatentRings(subject, estimators, keep=NUM_KEPT) for subject in subjects]
    pairs = _pairs(subjects, reference, protocol.size, units)
    gathered = Gathered(ImageRings(estimators, sizes), latents, units.first(0), shards, protocol, plan.full, pairs=pairs)
    if protocol.encoded < plan.full.encoded:
        gathered.stopped = "all images that fit into the time limit"
    start, count = time.monotonic(), 0
    with console.progress("measuring spectra") as report:
        for batch in validation_batches(shards, batch=BATCH, limit=protocol.encoded):
            pixels = middle(batch.images, protocol.size).to(device)
            gathered.images.add(pixels)
            means = {rings.subject.label: rings.add(pixels, count) for rings in latents}
            for label, pair in pairs.items():
                if isinstance(pair, LatentPairs):
                    pair.add(means[pair.reference.label], means[label])
            gathered.kept.append(pixels[:max(0, NUM_KEPT - count)])
            count += len(pixels)
            gathered.units = units.first(count)
            report(count, protocol.encoded)
            if reason := _enough(gathered, plan):
                gathered.stopped = reason
                break
    gathered.protocol = plan.after_encoding(time.monotonic() - start, encoded=count)
    return gathered


def _pairs(
    subjects: Sequence[Subject], reference: str | None, size: ImageSize, units: Units
) -> dict[str, LatentPairs | Reason]:
    """By label of every subject but the reference; {} without a reference."""
    chosen = next((one for one in subjects if one.label == reference), None)
    if chosen is None:
        return {}
    others = [one for one in subjects if one is not chosen]
    reasons = {one.label: unlike_latents(chosen, one, size) for one in others}
    return {
        one.label: Reason(reason=why) if (why := reasons[one.label]) else LatentPairs(chosen, one, units, keep=NUM_KEPT)
        for one in others
    }


def units_of(shards: ImageShards) -> Units:
    """The units of all images: photographs if it is known which photograph an image is a crop of."""
    groups = shards.groups
    return Units("photograph", groups) if groups else Units("image", [str(i) for i in range(len(shards))])


def middle(images: Tensor, size: ImageSize) -> Tensor:
    """The middle of images (..., H, W)."""
    top, left = ((whole - part) // 2 for whole, part in zip(images.shape[-2:], size, strict=True))
    return images[..., top : top + size.height, left : left + size.width]


def _enough(gathered: Gathered, plan: Plan) -> str:
    """The reason why the pass ends before all images, or "" to continue."""
    count = len(gathered.units.groups)
    if plan.limit is None or count < min(FEWEST_ENCODED, plan.protocol.encoded) or count == plan.full.encoded:
        return ""
    if plan.seconds_for_encoding() <= 0:
        return "the time limit was reached"
    looks = plan.ends_early and count in LOOKS and gathered.latents and gathered.images.measures(PHYSICAL)
    if looks and all(_delta_is_known(latents, gathered) for latents in gathered.latents):
        return ALL_KNOWN
    return ""


def _delta_is_known(latents: LatentRings, gathered: Gathered) -> bool:
    found = headline_delta(gathered.images, latents, latents.stats("").std, gathered.size(latents), gathered.units)
    return isinstance(found, Delta) and found.half_width is not None and found.half_width <= GOOD_HALF_WIDTH
