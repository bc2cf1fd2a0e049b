from fractions import Fraction

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor
from torch.testing import assert_close

from smtool.spectrum import block_low_pass, fit_cutoff, fitted_low_pass, low_pass_mask


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 32, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def tile_by_tile(x: np.ndarray, rows_removed: int, block: int, shape: str) -> np.ndarray:
    low = np.empty_like(x)
    u, v = np.mgrid[:block, :block]
    kept = u + v < 2 * block - 1 - rows_removed if shape == "triangle" else np.maximum(u, v) < block - rows_removed
    for i in range(0, x.shape[-2], block):
        for j in range(0, x.shape[-1], block):
            coefficients = scipy.fft.dctn(x[..., i : i + block, j : j + block], axes=(-2, -1), norm="ortho")
            low[..., i : i + block, j : j + block] = scipy.fft.idctn(coefficients * kept, axes=(-2, -1), norm="ortho")
    return low


@pytest.mark.parametrize(
    ("block", "rows_removed"), [(8, 1), (8, 6), (8, 8), (8, 10), (8, 12), (8, 13), (8, 14), (4, 3), (16, 20), (32, 40)]
)
def test_triangle_equals_scipy_tile_by_tile(x: Tensor, block: int, rows_removed: int) -> None:
    expected = tile_by_tile(x.numpy(), rows_removed, block, "triangle")
    np.testing.assert_allclose(block_low_pass(x, rows_removed, block=block).numpy(), expected, rtol=0, atol=1e-12)
    assert_close(block_low_pass(x.float(), rows_removed, block=block).double(), torch.from_numpy(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("block", "rows_removed"), [(8, 1), (8, 4), (8, 7), (2, 1), (32, 16)])
def test_square_equals_scipy_tile_by_tile(x: Tensor, block: int, rows_removed: int) -> None:
    expected = tile_by_tile(x.numpy(), rows_removed, block, "square")
    found = block_low_pass(x, rows_removed, block=block, shape="square")
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rows_removed", "kept"), [(0, 64), (6, 43), (8, 28), (10, 15), (12, 6), (13, 3), (14, 1)])
def test_triangle_keeps_the_published_number_of_coefficients(rows_removed: int, kept: int) -> None:
    assert int(low_pass_mask(8, rows_removed, shape="triangle").sum()) == kept


@pytest.mark.parametrize("shape", ["triangle", "square"])
def test_nothing_removed_is_the_same_values(x: Tensor, shape: str) -> None:
    assert torch.equal(block_low_pass(x, 0, shape=shape), x)
    assert torch.equal(block_low_pass(x, torch.zeros(4, dtype=torch.int64), shape=shape), x)


def test_each_sample_may_have_its_own_cutoff(x: Tensor) -> None:
    cutoffs = torch.tensor([12, 0, 8, 12])
    found = block_low_pass(x, cutoffs)
    expected = torch.cat([block_low_pass(sample[None], int(n)) for sample, n in zip(x, cutoffs, strict=True)])
    assert_close(found, expected, rtol=0, atol=1e-14)
    assert torch.equal(found[1], x[1])


@pytest.mark.parametrize(("block", "rows_removed"), [(8, 10), (32, 40)])
def test_low_pass_is_an_orthogonal_projection(x: Tensor, block: int, rows_removed: int) -> None:
    low, y = block_low_pass(x, rows_removed, block=block), x.flip(0, 3)
    assert_close(block_low_pass(low, rows_removed, block=block), low, rtol=0, atol=1e-12)
    assert_close((low * y).sum(), (x * block_low_pass(y, rows_removed, block=block)).sum(), rtol=1e-10, atol=0)
    assert_close((low * (x - low)).sum(), torch.zeros((), dtype=x.dtype), rtol=0, atol=1e-9)


@pytest.mark.parametrize("cutoff", [8, torch.tensor([12, 0, 8, 12])])
def test_its_gradient_is_itself(x: Tensor, cutoff: int | Tensor) -> None:
    weight, x = x.flip(1, 2), x.clone().requires_grad_()
    block_low_pass(x, cutoff).backward(weight)
    assert_close(x.grad, block_low_pass(weight, cutoff), rtol=0, atol=1e-13)


def test_first_and_second_derivatives_are_right() -> None:
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: block_low_pass(x, 9), x)
    assert torch.autograd.gradgradcheck(lambda x: block_low_pass(x, 9) ** 3, x)


@pytest.mark.parametrize("corner", [(0, 0), (8, 16), (24, 56)])
def test_half_a_square_is_downsampling_by_two(x: Tensor, corner: tuple[int, int]) -> None:
    """Paper A.4. A low-passed tile is a sum of cosines; sampled at the centres of pixels twice as large it is a smaller tile.

    The kept coefficients, halved, are the DCT of the smaller tile, and the low-passed tile can be computed from them.
    """
    tile = (0, 0, slice(corner[0], corner[0] + 8), slice(corner[1], corner[1] + 8))
    low = block_low_pass(x, 4, shape="square")[tile].numpy()
    k, centres = np.arange(8), np.array([1, 3, 5, 7])  # of the larger pixels, in units of the smaller
    cosines = np.cos(np.pi * k * centres[:, None] / 8) * np.where(k == 0, np.sqrt(1 / 8), np.sqrt(2 / 8))
    small = cosines @ scipy.fft.dctn(low, norm="ortho") @ cosines.T
    kept = scipy.fft.dctn(x[tile].numpy(), norm="ortho")[:4, :4]
    np.testing.assert_allclose(scipy.fft.idctn(kept / 2, norm="ortho"), small, rtol=0, atol=1e-13)
    enlarged = scipy.fft.idctn(np.pad(2 * scipy.fft.dctn(small, norm="ortho"), (0, 4)), norm="ortho")
    np.testing.assert_allclose(low, enlarged, rtol=0, atol=1e-13)


def test_autocast_and_half_precision_are_computed_in_float32(x: Tensor) -> None:
    x, expected = x.float(), block_low_pass(x.float().double(), 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = block_low_pass(x, 10)
    assert found.dtype == torch.float32
    assert_close(found.double(), expected, rtol=0, atol=1e-5)
    half = block_low_pass(x.bfloat16(), 10)
    assert half.dtype == torch.bfloat16
    assert_close(half, block_low_pass(x.bfloat16().double(), 10).bfloat16(), rtol=2**-7, atol=1e-6)  # one rounding of the result


def test_memory_layout_does_not_matter(x: Tensor) -> None:
    strided = x.to(memory_format=torch.channels_last)[:, :, :, ::2]
    assert_close(block_low_pass(strided, 8), block_low_pass(strided.contiguous(), 8), rtol=0, atol=0)


@pytest.mark.parametrize("side", [1, 2, 4, 7, 8, 16, 32])
def test_fitted_cutoffs_keep_the_nearest_fraction_of_anti_diagonals(side: int) -> None:
    for rows_removed in range(15):
        block, rows = fit_cutoff(side, rows_removed)
        exact = Fraction((15 - rows_removed) * (2 * block - 1), 15)
        assert block == min(8, side)
        assert 2 * block - 1 - rows == max(1, round(exact))
    assert fit_cutoff(4, 4, shape="square") == (4, 2)


def test_fitted_low_pass_takes_small_latents_and_leaves_large_ones_as_they_were(x: Tensor) -> None:
    small = x[..., :4, :4]
    assert_close(fitted_low_pass(small, 8), block_low_pass(small, 4, block=4), rtol=0, atol=0)  # 7 of 15 rows are 3 of 7
    assert_close(fitted_low_pass(small, torch.tensor([0, 8, 12, 8])), block_low_pass(small, torch.tensor([0, 4, 6, 4]), block=4))
    assert_close(fitted_low_pass(x, 8), block_low_pass(x, 8), rtol=0, atol=0)


def test_sizes_that_blocks_cannot_tile_are_refused_by_name(x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"12x64.*blocks of 8.*block = \"fit\""):
        block_low_pass(x[:, :, :12], 8)
    with pytest.raises(ValueError, match="4x4"):
        block_low_pass(x[..., :4, :4], 8)


def test_impossible_cutoffs_are_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match=r"0 \.\.\. 14.*is 15"):
        block_low_pass(x, 15)
    with pytest.raises(ValueError, match=r"0 \.\.\. 7.*is 8"):
        block_low_pass(x, torch.tensor([0, 8, 0, 0]), shape="square")
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        block_low_pass(x, torch.tensor([8, 8]))
    with pytest.raises(ValueError, match="float32"):
        block_low_pass(x, torch.ones(4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_follows_cpu(x: Tensor) -> None:
    assert_close(block_low_pass(x.float().cuda(), 10).cpu(), block_low_pass(x.float(), 10), rtol=0, atol=1e-5)
