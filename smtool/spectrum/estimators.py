"""The two estimators of a power spectrum. They answer different questions and never appear in the same plot.

REFERENCE is what the released code of Spectrum Matching (arXiv 2603.14645) computes, with all its details: images are
downsampled by bicubic interpolation without antialiasing (after a 7x7 blur unless the latent is 32 cells high), power is averaged
in 16 linear bins out to the corner, weighted by (bin number)^delta, compressed by log1p and normalized to sum 1
(released-code.md#esm). PHYSICAL is the plain power spectral density in cycles per pixel (spectrum.md#power-spectrum).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

EPS = 1e-8
"""The small constant of the released code: lower limit of the power, and added to every divisor and inside every logarithm."""


@dataclass(frozen=True)
class Estimator:
    """How ring powers are measured. Make variants with `dataclasses.replace(REFERENCE.loss, ...)`; `label` names the changes.

    name: "reference" (linear bins to the corner) or "physical" (rings in cycles per pixel, corners left out).
    bins: number of bins; None for PHYSICAL, whose rings follow from the size.
    downsample: how an image is reduced to the latent's size. "released": 7x7 blur with sigma 1.2 unless h = 32, then bicubic
        without antialiasing; "antialias": bicubic with antialiasing, no blur; "dct-crop": the low DCT cells (ideal downsampling).
    keep_dc: whether cell (0, 0) keeps its power. REFERENCE counts the cell in its bin in both cases; PHYSICAL has it in no ring.
    log: "log1p" compresses the bins before they are normalized to sum 1, "none" does not.
    gain: "raw" compares latents at their own gain; "match" first scales their bins to the target's total power over the batch.

    Raises ValueError for REFERENCE with bins < 1, and for any variant of PHYSICAL.
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
        """ "PHYSICAL", "REFERENCE.loss" or "REFERENCE.curve", followed by every field that differs from the released values."""
        if self.name == "physical":
            return "PHYSICAL"
        released = REFERENCE.curve if self.keep_dc else REFERENCE.loss
        keys = ("bins", "downsample", "log", "gain")
        changed = [f"{key}={getattr(self, key)}" for key in keys if getattr(self, key) != getattr(released, key)]
        return ", ".join([f"REFERENCE.{'curve' if self.keep_dc else 'loss'}", *changed])


class Reference(NamedTuple):
    """The two forms in which the released code uses its estimator."""

    loss: Estimator
    """For the ESM loss: the power of cell (0, 0) is set to zero."""
    curve: Estimator
    """For the curves in the paper's figures: cell (0, 0) keeps its power."""


REFERENCE = Reference(loss=Estimator("reference"), curve=Estimator("reference", keep_dc=True))
PHYSICAL = Estimator("physical", bins=None, downsample="dct-crop", log="none")
