"""`dct_upsample` against scipy block by block, and the property that it inverts averaging."""

import math

import numpy as np
import pytest
import scipy.fft
import skimage.data
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from smtool.spectrum import dct_upsample


def upsampled_by_scipy(image: np.ndarray, block: int) -> np.ndarray:
    """Twice the size of one channel (H, W), by the formula of the paper's code."""
    height, width = image.shape
    large = np.empty((2 * height, 2 * width))
    for top in range(0, height, block):
        for left in range(0, width, block):
            small = scipy.fft.dctn(image[top : top + block, left : left + block] - 128, norm="ortho")
            padded = np.zeros((2 * block, 2 * block))
            for i in range(block):
                for j in range(block):
                    padded[i, j] = 2 * small[i, j] / (math.cos(math.pi * i / 4 / block) * math.cos(math.pi * j / 4 / block))
            place = slice(2 * top, 2 * (top + block)), slice(2 * left, 2 * (left + block))
            large[place] = scipy.fft.idctn(padded, norm="ortho") + 128
    return large


@pytest.mark.parametrize("block", [2, 4, 8])
def test_a_photograph_is_enlarged_as_by_scipy(block):
    photograph = skimage.data.chelsea()[96:136, 120:184].astype(np.float64)
    found = dct_upsample(torch.from_numpy(photograph).permute(2, 0, 1)[None], block=block)
    expected = np.stack([upsampled_by_scipy(photograph[..., channel], block) for channel in range(3)])
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_averages_of_the_result_are_the_image(factor, rng):
    image = torch.from_numpy(rng.standard_normal((2, 3, 8, 12)))
    large = dct_upsample(image, factor)
    assert large.shape == (2, 3, 8 * factor, 12 * factor)
    assert_close(F.avg_pool2d(large, factor), image, rtol=0, atol=1e-12)


def test_averaging_is_inverted_where_a_block_has_low_frequencies_only(rng):
    coefficients = np.zeros((8, 8))
    coefficients[:4, :4] = rng.standard_normal((4, 4))
    block = torch.from_numpy(scipy.fft.idctn(coefficients, norm="ortho"))[None]
    assert_close(dct_upsample(F.avg_pool2d(block, 2)), block, rtol=0, atol=1e-14)


def test_sides_that_blocks_do_not_tile_are_refused():
    with pytest.raises(ValueError, match="10x8 cannot be tiled by blocks of 4"):
        dct_upsample(torch.zeros(1, 3, 10, 8))
    with pytest.raises(ValueError, match="at least 1, but are 0 and 4"):
        dct_upsample(torch.zeros(1, 3, 8, 8), 0)
