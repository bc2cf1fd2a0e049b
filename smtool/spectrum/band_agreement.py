"""How far an unfinished image agrees with the final one, in each PHYSICAL ring of frequencies (spectrum.md#emergence)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.spectrum.dct import dct2
from smtool.spectrum.estimators import PHYSICAL
from smtool.spectrum.psd import Size, ring_means


@dataclass(frozen=True)
class BandAgreement:
    """Ring means over a set of images of x^2, of y^2 and of x y, for DCT cells x of estimates and y of the final images.

    size: (H, W) of the images. power, final, product: (bins,) float64, means over channels and images.
    """

    size: Size
    power: Tensor
    final: Tensor
    product: Tensor

    @property
    def explained(self) -> Tensor:
        """Fraction of the final power that the estimates explain, 1 - mean (x - y)^2 / mean y^2: (bins,), at most 1.

        0 for x = 0, negative for a worse estimate, NaN where the final images have no power.
        """
        error = (self.power - self.product) + (self.final - self.product)
        return (1 - error / self.final).where(self.final > 0, torch.nan)

    @property
    def correlation(self) -> Tensor:
        """mean x y / sqrt(mean x^2 mean y^2), (bins,), in [-1, 1]; NaN where one of both has no power."""
        return self.product / (self.power * self.final).sqrt()


def band_agreement(estimates: Tensor, final: Tensor) -> BandAgreement:
    """Compare estimates with final images or latents, both (B, C, H, W), ring by ring; without their means.

    Raises ValueError for different shapes and for grids too small for PHYSICAL rings. Oracle: scipy's DCT and a double loop.
    """
    if estimates.shape != final.shape or estimates.ndim != 4:
        raise ValueError(f"estimates {tuple(estimates.shape)} and final images {tuple(final.shape)} must be (B, C, H, W), alike")
    x, y = dct2(estimates.double()), dct2(final.double())
    cells = torch.stack([(a * b).mean((0, 1)) for a, b in ((x, x), (y, y), (x, y))])
    power, whole, product = ring_means(cells, PHYSICAL).cpu()
    return BandAgreement((x.shape[-2], x.shape[-1]), power, whole, product)


def settled_step(explained: Tensor, share: float) -> Tensor:
    """The first step from which the explained fraction stays at or above `share` to the end: (steps, bins) -> (bins,) int64.

    The number of steps where the last step is below the share, or NaN: then only the final image is settled. Raises ValueError
    for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of the final power must lie in (0, 1], but is {share}")
    stays = (explained >= share).flip(0).int().cumprod(0).sum(0)
    return len(explained) - stays
