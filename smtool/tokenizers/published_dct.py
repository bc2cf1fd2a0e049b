"""Settings and measures of DCTdiff's published models (configuration files of the released code of arXiv 2412.15032)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedDCT:
    """block: side of a block; kept: coefficients kept; snr_scale: the paper's c; eta: the bound of luma's DC.

    luma, blue, red: entropies in bits of the block's coefficients of Y, Cb and Cr, in raster order. () where the coefficients
    beyond the first are published as a range only.
    """

    block: int
    kept: int
    snr_scale: float
    eta: float
    luma: tuple[float, ...]
    blue: tuple[float, ...] = ()
    red: tuple[float, ...] = ()


PUBLISHED = {
    "cifar10": PublishedDCT(
        2, 4, 2, 242.382, (6.471, 3.588, 3.767, 2.411), (4.308, 1.315, 1.487, 1.0), (4.014, 1.284, 1.435, 1.0)
    ),
    "celeba64": PublishedDCT(
        2, 4, 4, 244.925, (6.507, 3.297, 3.063, 1.844), (4.013, 1.287, 1.06, 1.0), (4.239, 1.422, 1.204, 1.0)
    ),
    "imagenet64": PublishedDCT(
        2, 4, 4, 247.125, (6.522, 3.377, 3.386, 2.389), (4.27, 1.329, 1.351, 0.988), (4.078, 1.292, 1.303, 0.987)
    ),
    "ffhq128": PublishedDCT(
        4, 9, 3, 480.25,
        (6.53, 3.478, 2.196, 1.405, 3.378, 2.381, 1.765, 1.185, 2.072, 1.697, 1.291, 0.999, 1.291, 1.083, 0.999, 0.999),
    ),
    "ffhq256": PublishedDCT(
        4, 8, 1, 485.0,
        (6.543, 2.894, 1.769, 1.197, 2.8, 1.916, 1.458, 1.029, 1.647, 1.386, 1.106, 0.994, 1.107, 0.996, 0.994, 0.996),
    ),
}  # fmt: skip
