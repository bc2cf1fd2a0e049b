"""The zig-zag order against JPEG's table, and the low-pass against scipy."""

import numpy as np
import pytest
import scipy.fft
import torch

from smtool.spectrum import zigzag_low_pass, zigzag_rank

JPEG = [      # places of the coefficients of an 8x8 block, ISO/IEC 10918-1, figure A.6
    [0, 1, 5, 6, 14, 15, 27, 28],
    [2, 4, 7, 13, 16, 26, 29, 42],
    [3, 8, 12, 17, 25, 30, 41, 43],
    [9, 11, 18, 24, 31, 40, 44, 53],
    [10, 19, 23, 32, 39, 45, 52, 54],
    [20, 22, 33, 38, 46, 51, 55, 60],
    [21, 34, 37, 47, 50, 56, 59, 61],
    [35, 36, 48, 49, 57, 58, 62, 63],
]


def test_the_order_is_jpegs_transposed():
    np.testing.assert_array_equal(zigzag_rank(8, 8).numpy(), np.transpose(JPEG))


def test_the_first_64_of_256_are_the_cells_that_the_released_code_keeps():
    """All with u + v up to 9, and those on u + v = 10 but for the two of the largest row."""
    first = {(u, v) for u, v in np.argwhere(zigzag_rank(16, 16).numpy() < 64).tolist()}
    assert first == {(u, v) for u in range(16) for v in range(16) if u + v <= 9} | {(u, 10 - u) for u in range(9)}


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (1, 4)])
def test_a_rectangle_has_every_place_once_by_anti_diagonals(shape):
    ranks = zigzag_rank(*shape).numpy()
    assert sorted(ranks.flatten()) == list(range(ranks.size))
    u, v = np.indices(shape)
    assert (np.diff((u + v).flatten()[ranks.flatten().argsort()]) >= 0).all()


def test_each_sample_keeps_its_own_number_of_coefficients(rng):
    x = rng.standard_normal((3, 2, 4, 6))
    kept = [1, 9, 24]
    found = zigzag_low_pass(torch.from_numpy(x), torch.tensor(kept)).numpy()
    order = sorted(((u, v) for u in range(4) for v in range(6)), key=lambda c: (sum(c), c[0] if sum(c) % 2 == 0 else -c[0]))
    for image, count, result in zip(x, kept, found, strict=True):
        coefficients = scipy.fft.dctn(image, axes=(-2, -1), norm="ortho")
        for u, v in order[count:]:
            coefficients[:, u, v] = 0
        np.testing.assert_allclose(result, scipy.fft.idctn(coefficients, axes=(-2, -1), norm="ortho"), atol=1e-12)
