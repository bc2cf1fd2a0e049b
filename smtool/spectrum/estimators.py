"""The recipes by which a power spectrum is measured. They answer different questions and are never mixed in one plot.

REFERENCE is what the released code of Spectrum Matching (arXiv 2603.14645) computes, quirks included: images are shrunk by
bicubic interpolation without antialiasing (after a 7x7 blur unless the latent is 32 cells high), power is gathered in 16 linear
bins out to the corner, weighted by (bin number)^delta, compressed by log1p and normalized to sum 1.
PHYSICAL is the plain power spectral density in cycles per pixel.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

EPS = 1e-8
"""The released code's one small constant: floor of the power, and added to every divisor and inside every logarithm."""


@dataclass(frozen=True)
class Estimator:
    """How powers are gathered. Make variants by `dataclasses.replace(REFERENCE.loss, ...)`; `label` names what was changed.

    name: "reference" (linear bins to the corner) or "physical" (rings in cycles per pixel, corners left out).
    bins: number of bins; None for PHYSICAL, whose rings follow from the size.
    downsample: how an image comes to the latent's size. "released": blur 7x7 with sigma 1.2 unless h = 32, then bicubic without
        antialiasing; "antialias": bicubic with antialiasing, no blur; "dct-crop": the low DCT cells, which is ideal downsampling.
    keep_dc: whether cell (0, 0) keeps its power. It is counted in its bin either way (PHYSICAL: it is in no ring).
    log: "log1p" compresses the bins before they are normalized to sum 1, "none" does not.
    gain: "raw" compares latents as loud as they are; "match" first scales their bins to the target's total power over the batch.
    """

    name: Literal["reference", "physical"]
    bins: int | None = 16
    downsample: Literal["released", "antialias", "dct-crop"] = "released"
    keep_dc: bool = False
    log: Literal["log1p", "none"] = "log1p"
    gain: Literal["raw", "match"] = "raw"

    def __post_init__(self) -> None:
        if self.name == "reference" and (self.bins is None or self.bins < 1):
            raise ValueError(f"a REFERENCE estimator needs bins >= 1, but got {self.bins}")
        physical = (self.bins, self.downsample, self.keep_dc, self.log, self.gain)
        if self.name == "physical" and physical != (None, "dct-crop", False, "none", "raw"):
            raise ValueError("PHYSICAL has one form only; vary REFERENCE.loss or REFERENCE.curve instead")

    @property
    def label(self) -> str:
        """ "PHYSICAL", "REFERENCE.loss" or "REFERENCE.curve", followed by every key that differs from the released recipe."""
        if self.name == "physical":
            return "PHYSICAL"
        released = REFERENCE.curve if self.keep_dc else REFERENCE.loss
        keys = ("bins", "downsample", "log", "gain")
        changed = [f"{key}={getattr(self, key)}" for key in keys if getattr(self, key) != getattr(released, key)]
        return ", ".join([f"REFERENCE.{'curve' if self.keep_dc else 'loss'}", *changed])


class Reference(NamedTuple):
    """The released code's two uses of its recipe."""

    loss: Estimator
    """What ESM trains on: cell (0, 0) set to zero."""
    curve: Estimator
    """What the paper's figures draw: cell (0, 0) kept."""


REFERENCE = Reference(loss=Estimator("reference"), curve=Estimator("reference", keep_dc=True))
PHYSICAL = Estimator("physical", bins=None, downsample="dct-crop", log="none")
