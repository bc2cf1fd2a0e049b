"""Compare agreement by rings with scipy's DCT and a double loop, and with closed forms."""

import numpy as np
import pytest
import scipy.fft
import torch
from torch.testing import assert_close

from smtool.spectrum.band_agreement import band_agreement, settled_step


def looped(x, y):
    """{ring number: (sum of x^2, of y^2, of x y)} for the first eight rings, of width half a cycle per frame, square images."""
    sums = {}
    x, y = (scipy.fft.dctn(a, axes=(-2, -1), norm="ortho") for a in (x, y))
    side = x.shape[-1]
    for u in range(side):
        for v in range(side):
            ring = int(np.floor(np.hypot(u, v) + 0.5))
            if 1 <= ring <= 6:
                a, b = x[..., u, v], y[..., u, v]
                sums[ring] = sums.get(ring, 0) + np.array([(a * a).sum(), (b * b).sum(), (a * b).sum()])
    return sums


def test_agreement_equals_a_double_loop_over_cells(rng):
    x, noise = rng.standard_normal((2, 5, 3, 16, 16))
    y = 0.6 * x + noise + 2.0      # a mean, which is no ring
    found = band_agreement(torch.from_numpy(x), torch.from_numpy(y))
    for ring, (xx, yy, xy) in looped(x, y).items():
        assert found.explained[ring - 1].item() == pytest.approx(1 - (xx - 2 * xy + yy) / yy, abs=1e-12)
        assert found.correlation[ring - 1].item() == pytest.approx(xy / np.sqrt(xx * yy), abs=1e-12)
        assert found.power[ring - 1].item() / found.final[ring - 1].item() == pytest.approx(xx / yy, rel=1e-12)


def test_an_estimate_explains_all_of_itself_nothing_if_it_is_zero_and_less_than_nothing_if_opposite(rng):
    x = torch.from_numpy(rng.standard_normal((2, 1, 16, 16)))
    ones = torch.ones(len(band_agreement(x, x).power), dtype=torch.float64)
    assert torch.equal(band_agreement(x, x).explained, ones)
    assert torch.equal(band_agreement(0 * x, x).explained, 0 * ones)
    assert_close(band_agreement(-x, x).explained, -3 * ones)
    half = band_agreement(0.5 * x, x)
    assert_close(half.explained, 0.75 * ones)
    assert_close(half.correlation, ones)
    assert band_agreement(x, 0 * x).explained.isnan().all()


def test_a_band_is_settled_from_the_step_after_its_last_low_one():
    explained = torch.tensor([
        [0.95, 0.1, 0.1, -1.0, 0.9],
        [0.50, 0.2, 0.9, -9.0, 0.9],
        [0.91, 0.3, 1.0, 0.99, 0.9],
        [1.00, 0.4, 1.0, torch.nan, 0.9],
    ])
    assert settled_step(explained, 0.9).tolist() == [2, 4, 1, 4, 0]


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match="must lie in"):
        settled_step(torch.zeros(2, 3), share)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="alike"):
        band_agreement(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="too small"):
        band_agreement(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
