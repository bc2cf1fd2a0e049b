"""The Haar transform against loops over blocks, scipy's Hadamard matrix, and PyWavelets where it is installed."""

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from smtool.spectrum import haar_bands


def _picture(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _looped(x: np.ndarray, levels: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """One image (H, W): each 2x2 block times scipy's 4x4 Hadamard matrix."""
    high = []
    for _ in range(levels):
        x = np.pad(x, [(0, side % 2) for side in x.shape], mode="edge")
        height, width = x.shape[0] // 2, x.shape[1] // 2
        bands = np.empty((4, height, width))
        for i in range(height):
            for j in range(width):
                bands[:, i, j] = hadamard(4) @ x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel() / 2
        x = bands[0]
        high.append(bands[1:])
    return x, high


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (7, 9), (5, 16)])
@pytest.mark.parametrize("levels", [1, 2])
def test_bands_are_those_of_a_loop_over_blocks(size, levels):
    x = _picture(2, 3, *size)
    found = haar_bands(x, levels)
    for image in np.ndindex(2, 3):
        low, high = _looped(x[image].numpy(), levels)
        np.testing.assert_allclose(found.low[image].numpy(), low, atol=1e-12)
        for mine, theirs in zip(found.high, high, strict=True):
            np.testing.assert_allclose(mine[image].numpy(), theirs, atol=1e-12)


def test_bands_are_those_of_pywavelets():
    pywt = pytest.importorskip("pywt")
    x = _picture(7, 12)
    low, *high = pywt.wavedec2(x.numpy(), "haar", mode="symmetric", level=2)
    found = haar_bands(x, 2)
    np.testing.assert_allclose(found.low.numpy(), low, atol=1e-12)
    for mine, (horizontal, vertical, diagonal) in zip(found.high[::-1], high, strict=True):
        np.testing.assert_allclose(mine.numpy(), np.stack([vertical, horizontal, diagonal]), atol=1e-12)


def test_energy_is_kept_and_a_constant_has_no_details():
    x = _picture(2, 16, 8)
    bands = haar_bands(x, 3)
    energy = bands.low.square().sum() + sum(part.square().sum() for part in bands.high)
    torch.testing.assert_close(energy, x.square().sum())
    flat = haar_bands(torch.ones(5, 7, dtype=torch.float64), 2)
    assert torch.equal(flat.low, torch.full((2, 2), 4.0, dtype=torch.float64)) and not any(part.any() for part in flat.high)


@pytest.mark.parametrize(("size", "levels"), [((8, 3), 2), ((8, 8), 0)])
def test_too_many_levels_are_refused(size, levels):
    with pytest.raises(ValueError, match=rf"{levels} Haar levels need .* x is {size[0]}x{size[1]}"):
        haar_bands(torch.zeros(size), levels)
