import math

import numpy as np
import pytest
import scipy.fft
import torch
from torch.testing import assert_close

from smtool.diffusion import Warmup


def _wave(size, cycles_down, cycles_across):
    """(1, 1, size, size): a cosine of that many cycles per image."""
    place = torch.arange(size, dtype=torch.float64)
    return torch.cos(2 * math.pi * (cycles_down * place[:, None] + cycles_across * place) / size)[None, None]


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 24, 31), (1, 1, 17, 20)])
@pytest.mark.parametrize("kind", ["ideal", "butterworth", "gaussian"])
def test_the_filter_equals_scipys_full_transform(rng, shape, kind):
    images = rng.standard_normal(shape)
    radius = np.hypot(scipy.fft.fftfreq(shape[2])[:, None], scipy.fft.fftfreq(shape[3]))
    gain = {
        "ideal": (radius <= 0.2).astype(float),
        "butterworth": 1 / (1 + (radius / 0.2) ** 6),
        "gaussian": np.exp(-(radius**2) / (2 * 0.2**2)),
    }[kind]
    expected = scipy.fft.ifft2(scipy.fft.fft2(images) * gain).real
    found = Warmup(kind=kind, order=3, steps=1).filtered(torch.from_numpy(images))
    assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_the_ideal_filter_is_a_projection_that_keeps_all_up_to_the_cutoff():
    """On 40 pixels, 0.2 cycles per pixel are 8 cycles: (8, 0) and (0, 8) are kept, (9, 0) and (6, 6) are removed."""
    warmup = Warmup(steps=1)
    for cycles, kept in (((8, 0), 1), ((0, 8), 1), ((5, 6), 1), ((9, 0), 0), ((6, 6), 0), ((0, 20), 0)):
        assert_close(warmup.filtered(_wave(40, *cycles)), kept * _wave(40, *cycles), rtol=0, atol=1e-12)
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once = warmup.filtered(images)
    assert_close(warmup.filtered(once), once, rtol=0, atol=1e-12)
    assert_close(once.mean((2, 3)), images.mean((2, 3)))


@pytest.mark.parametrize(("kind", "gain"), [("butterworth", 0.5), ("gaussian", math.exp(-0.5))])
def test_smooth_filters_have_their_stated_gain_at_the_cutoff(kind, gain):
    wave = _wave(40, 8, 0)
    assert_close(Warmup(kind=kind, steps=1).filtered(wave), gain * wave, rtol=0, atol=1e-12)


def test_half_precision_images_are_filtered_in_float32():
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Warmup(steps=1).filtered(images)
    assert found.dtype == torch.bfloat16
    assert_close(found, Warmup(steps=1).filtered(images.float()).bfloat16(), rtol=0, atol=0)


def test_the_warm_up_ends():
    warmup = Warmup(steps=3)
    assert [warmup.active(step) for step in range(5)] == [True, True, True, False, False]


def test_the_corners_of_the_domain_are_beyond_the_ends_of_its_axes():
    """On 32 pixels, (16, 16) cycles are at 0.707 cycles per pixel, (16, 0) at 0.5."""
    warmup = Warmup(cutoff=0.6, steps=1)
    assert_close(warmup.filtered(_wave(32, 16, 0)), _wave(32, 16, 0), rtol=0, atol=1e-12)
    assert_close(warmup.filtered(_wave(32, 16, 16)), torch.zeros_like(_wave(32, 16, 16)), rtol=0, atol=1e-12)


def test_an_ideal_filter_that_removes_nothing_is_a_problem():
    assert [key for key, _ in Warmup(cutoff=0.75, steps=1).problems()] == ["cutoff"]
    images = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_close(Warmup(cutoff=0.7072, steps=1).filtered(images), images, rtol=0, atol=1e-12)
    for works in (Warmup(kind="gaussian", cutoff=0.75, steps=1), Warmup(cutoff=0.7, steps=1)):
        assert list(works.problems()) == []
        assert float((works.filtered(images) - images).abs().max()) > 1e-3


def test_nothing_is_clipped():
    step = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    step[..., :16] = -1
    assert Warmup(steps=1).filtered(step).abs().max() > 1.05


def test_its_length_is_required():
    with pytest.raises(ValueError, match="steps"):
        Warmup()
