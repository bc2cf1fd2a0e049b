"""The plan of a report: the protocol that is measured, chosen from one timed pass of every autoencoder and a time limit."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from smtool.diffusability.inputs.subjects import PassSeconds, Subject
from smtool.diffusability.protocol import SMALLEST_SIDE, Protocol
from smtool.errors import CheckpointError
from smtool.image_shape import ImageSize

MINUTES_ON_CPU = 5
_EIGHTHS = (7, 6, 5, 4, 3, 2, 1)
_TOLERANCE = 1.02
_FASTEST = 0.5


@dataclass(frozen=True)
class Limit:
    """A time limit for a whole report. ends_early: the pass also ends once every delta is precise enough (`--budget`)."""

    seconds: float
    ends_early: bool = False


def limit_of(budget: float | None, device: str) -> Limit | None:
    """The limit of `smtool spectrum`: the budget in seconds if one is given, else MINUTES_ON_CPU on a CPU and none elsewhere."""
    if budget is not None:
        return Limit(budget, ends_early=True)
    return Limit(60 * MINUTES_ON_CPU) if device == "cpu" else None


@dataclass(frozen=True)
class Plan:
    """The protocol that is measured, the full one, and the time limit, None without a limit.

    began: `time.monotonic()` at the start of the report; passes: seconds of one pass of every autoencoder, () without a limit.
    """

    protocol: Protocol
    full: Protocol
    limit: Limit | None = None
    began: float = field(default_factory=time.monotonic)
    passes: Sequence[PassSeconds] = ()

    @property
    def ends_early(self) -> bool:
        return self.limit is not None and self.limit.ends_early

    @property
    def full_seconds(self) -> float | None:
        """Estimated time of the full protocol; None if it was not estimated."""
        return self.full.seconds(self.passes) if self.passes else None

    def seconds_left(self) -> float:
        """Seconds until the limit; infinite without one."""
        return float("inf") if self.limit is None else self.limit.seconds - (time.monotonic() - self.began)

    def seconds_for_encoding(self) -> float:
        """Seconds until the limit that are not reserved for the decoding sections."""
        return self.seconds_left() - self.protocol.decoding_seconds(self.passes)

    def after_encoding(self, seconds: float, *, encoded: int) -> Protocol:
        """The protocol for the decoding sections, after `encoded` images took `seconds`, more or less than was estimated."""
        if not self.passes:
            return self.protocol
        whole = replace(self.full, encoded=encoded, size=self.protocol.size)
        slower = max(_FASTEST, seconds / whole.encoding_seconds(self.passes))
        return whole.shortened(self.passes, self.seconds_left() / slower)

    def sentences(self) -> Iterator[str]:
        """The estimate and the cuts, where the full protocol does not fit."""
        if self.limit is None or self.full_seconds is None or not (cuts := self.protocol.cuts_from(self.full)):
            return
        yield (f"The full protocol takes about {shown_time(self.full_seconds)} here; it is cut to fit into "
               f"{shown_time(self.limit.seconds)}: {'; '.join(cuts)}. --full measures all, --budget sets another time.")
        expected = self.protocol.seconds(self.passes)
        if expected > _TOLERANCE * self.seconds_left():
            yield f"The smallest protocol takes longer than that, about {shown_time(expected)}; it is run nevertheless."


def plan_report(
    subjects: Sequence[Subject], first: Tensor, *, images: int, limit: Limit | None, began: float, drift: bool = False
) -> Plan:
    """Time one pass of every subject and choose the protocol.

    first: an image (1, C, H, W) on the device; images: their number; began: as in `Plan`; drift: as in
    `Protocol`.
    """
    full = Protocol.full(images, ImageSize(*first.shape[-2:]), drift=drift)
    if limit is None or not subjects:
        return Plan(full, full, limit if subjects else None, began)
    for subject in subjects:
        subject.latent_size(full.size)      # raises for a size that it does not accept
    passes = [subject.one_pass(first) for subject in subjects]
    plan = Plan(full, full, limit, began, passes)
    return replace(plan, protocol=full.fitted(passes, plan.seconds_left(), smaller_sizes(subjects, full.size)))


def smaller_sizes(subjects: Sequence[Subject], size: ImageSize) -> list[ImageSize]:
    """The size in eighths, to a shorter side of SMALLEST_SIDE, that all subjects accept; descending."""
    parts = [part for part in _EIGHTHS if not (size.height * part % 8 or size.width * part % 8)]
    sizes = [ImageSize(size.height * part // 8, size.width * part // 8) for part in parts]
    return [smaller for smaller in sizes
            if smaller.shorter >= SMALLEST_SIDE and all(_accepts(one, smaller) for one in subjects)]


def _accepts(subject: Subject, size: ImageSize) -> bool:
    """Whether the subject encodes images of this size, and the blocks of the low-pass curve fill the latent."""
    try:
        cells = subject.latent_size(size)
    except CheckpointError:
        return False
    return not any(length % min(8, *cells) for length in cells)


def shown_time(seconds: float) -> str:
    """A time as people say it: 40 s, 5 min, 2 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
