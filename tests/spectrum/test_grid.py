"""Compare the two measures with loops over pixels, and check them on images with a known grid."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from smtool.spectrum import grid_artefacts, grid_statistics, idct2


def smooth_images(num_images: int = 24, side: int = 64) -> torch.Tensor:
    """Noise of a 1/f amplitude spectrum, three channels: no grid."""
    radius = (torch.arange(side).square()[:, None] + torch.arange(side).square()).sqrt()
    return idct2(torch.randn(num_images, 3, side, side, generator=torch.Generator().manual_seed(0)) / radius.clamp(min=1))


def with_pattern(images: torch.Tensor, period: int, share: float) -> torch.Tensor:
    """Add a pattern of this period whose variance is the fraction `share` of each image's variance."""
    pattern = torch.randn(period, period, generator=torch.Generator().manual_seed(1))
    pattern = (pattern - pattern.mean()) / pattern.std(correction=0)
    repeats = images.shape[-1] // period
    return images + (share * images.var((1, 2, 3), keepdim=True)).sqrt() * pattern.repeat(repeats, repeats)


def test_both_measures_equal_loops_over_pixels(rng):
    f, x = 3, rng.standard_normal((2, 2, 13, 10))
    templates, details, sharpness = [], [], np.zeros((f, f))
    for image in x:
        for channel in image:
            rows, columns = (13 - f + 1) // f * f, (10 - f + 1) // f * f
            detail = np.array([[channel[i + 1, j + 1] - channel[i : i + f, j : j + f].mean() for j in range(columns)]
                               for i in range(rows)])
            template = np.array([[detail[i::f, j::f].mean() for j in range(f)] for i in range(f)])
            templates.append((template**2).mean())
            details.append((detail**2).mean())
            for i in range(12 // f * f):
                for j in range(9 // f * f):
                    squared = (channel[i, j + 1] - channel[i, j]) ** 2 + (channel[i + 1, j] - channel[i, j]) ** 2
                    sharpness[i % f, j % f] += squared
    found = grid_statistics(torch.from_numpy(x), f)
    assert found.template == pytest.approx(np.mean(templates) / np.mean(details), rel=1e-12)
    assert found.phase == pytest.approx(1 - sharpness.min() / sharpness.max(), rel=1e-12)


def test_adding_batches_equals_all_at_once():
    x = smooth_images(7)
    parts, whole = grid_statistics(x[:3], 4) + grid_statistics(x[3:], 4), grid_statistics(x, 4)
    assert len(parts) == 7
    assert (parts.template, parts.phase) == pytest.approx((whole.template, whole.phase), rel=1e-6)


@pytest.mark.parametrize("period", [4, 8])
def test_a_faint_pattern_is_found_by_the_template(period):
    images = smooth_images(12, side=120)
    plain = grid_statistics(images, period)
    patterned = grid_statistics(with_pattern(images, period, 0.01), period)
    assert plain.template < 0.02
    assert patterned.template > 5 * plain.template
    other = grid_statistics(with_pattern(images, period, 0.01), period + 1)
    assert other.template < 0.2 * patterned.template


def test_a_pattern_alone_is_all_template():
    alone = with_pattern(torch.zeros(1, 1, 32, 32), 4, 0.0) + torch.arange(4.0).repeat(8)
    assert grid_statistics(alone, 4).template == pytest.approx(1, abs=1e-6)


def test_upsampling_shows_in_the_phases():
    """Nearest upsampling is flat inside every cell: 1.0. Bilinear is less sharp between centres: .49 (spectrum.md#health)."""
    images = smooth_images(side=128)
    pooled = F.avg_pool2d(images, 8)
    phase = {mode: grid_statistics(F.interpolate(pooled, scale_factor=8, mode=mode), 8).phase for mode in ("nearest", "bilinear")}
    assert phase["nearest"] == 1
    assert phase["bilinear"] == pytest.approx(0.5, abs=0.06)
    assert grid_statistics(images, 8).phase < 0.2


def test_a_perfect_autoencoder_has_no_excess_whatever_grid_its_inputs_have():
    inputs = with_pattern(smooth_images(), 8, 0.1)
    found = grid_artefacts(grid_statistics(inputs, 8), grid_statistics(inputs, 8))
    assert found.period == 8
    assert (found.template.excess, found.phase.excess) == (0, 0)
    assert found.template.input > 0.1
    images = smooth_images()
    nearest = F.interpolate(F.avg_pool2d(images, 8), scale_factor=8)
    added = grid_artefacts(grid_statistics(nearest, 8), grid_statistics(images, 8)).phase
    assert added.excess == added.reconstruction - added.input > 0.8


def test_gain_and_brightness_do_not_matter():
    images = smooth_images(8)
    once, again = grid_statistics(images, 8), grid_statistics(30 * images + 5, 8)
    assert_close(torch.tensor([again.template, again.phase]), torch.tensor([once.template, once.phase]), rtol=1e-3, atol=0)


def test_flat_images_give_nan():
    flat = grid_statistics(torch.ones(2, 3, 16, 16), 4)
    assert math.isnan(flat.template)
    assert math.isnan(flat.phase)


def test_what_cannot_be_compared_is_refused():
    images = smooth_images(3)
    with pytest.raises(ValueError, match="compare the same images: got 2 reconstructions of period 8 and 3 inputs of period 8"):
        grid_artefacts(grid_statistics(images[:2], 8), grid_statistics(images, 8))
    with pytest.raises(ValueError, match="periods 4 and 8 cannot be joined"):
        grid_statistics(images, 4) + grid_statistics(images, 8)
    with pytest.raises(ValueError, match="at least 64 pixels a side"):
        grid_statistics(images[..., :48], 32)
    with pytest.raises(ValueError, match="a period of 2 or more"):
        grid_statistics(images, 1)
