"""The low-pass curve: whether an autoencoder decodes a low-passed latent into the equally low-passed image, as DSM asks.

Relative convention: the same anti-diagonals leave 8x8 blocks of latent cells and of pixels (definition sheet, section 4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.metrics.reconstruction import psnr
from smtool.spectrum import fit_cutoff, fitted_low_pass

ROWS_REMOVED = tuple(range(15))


@dataclass(frozen=True)
class LowPassCurve:
    """PSNR in dB, (N, 15), one column for each number n of anti-diagonals removed.

    aligned: of D(LP_n z) against LP_n x. control: of D(z) against LP_n x, what a decoder reaches that ignores the removal.
    block: side of the latents' blocks, 8 or the whole side of a smaller latent.
    """

    aligned: Tensor
    control: Tensor
    block: int

    @property
    def gap(self) -> Tensor:
        """PSNR(D(z), x) - PSNR(D(LP_n z), LP_n x), (N, 15): what the removal costs; 0 for a decoder that is frequency-aligned."""
        return self.aligned[:, :1] - self.aligned

    @classmethod
    def joined(cls, parts: Sequence["LowPassCurve"]) -> "LowPassCurve":
        """More images of one autoencoder."""
        aligned, control = torch.cat([part.aligned for part in parts]), torch.cat([part.control for part in parts])
        return cls(aligned, control, parts[0].block)


@torch.no_grad()
def low_pass_curve(decode: Callable[[Tensor], Tensor], images: Tensor, latents: Tensor) -> LowPassCurve:
    """The curve of images (N, 3, H, W) in [-1, 1] and their latents (N, C, h, w); neither side is clamped.

    A latent smaller than 8 cells is one block, its cut-off scaled (`block = "fit"`). ValueError where blocks do not fill a side.
    """
    whole = decode(latents)
    aligned, control = [], []
    for rows in ROWS_REMOVED:
        target = fitted_low_pass(images, rows)
        aligned.append(psnr(decode(fitted_low_pass(latents, rows)) if rows else whole, target))
        control.append(psnr(whole, target))
    block, _ = fit_cutoff(min(latents.shape[-2:]), 0)
    return LowPassCurve(torch.stack(aligned, 1).cpu().double(), torch.stack(control, 1).cpu().double(), block)
