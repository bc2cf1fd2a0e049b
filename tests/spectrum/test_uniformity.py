import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from smtool.randomness import generator
from smtool.spectrum import direction_uniformity, uniform_limit


def _by_loops(x: np.ndarray, groups: list[int], t: float) -> float:
    """log of the mean kernel over all pairs of positions of images in different groups, by loops."""
    found = []
    for i, a in enumerate(x):
        for j, b in enumerate(x):
            if groups[i] == groups[j]:
                continue
            for u in a.reshape(len(a), -1).T:
                for v in b.reshape(len(b), -1).T:
                    found.append(math.exp(-t * np.sum((u / np.linalg.norm(u) - v / np.linalg.norm(v)) ** 2)))
    return math.log(np.mean(found))


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4], [7, 7, 3, 3, 9]])
@pytest.mark.parametrize("t", [2.0, 0.5])
def test_uniformity_equals_a_loop_over_all_pairs_of_different_images(rng, groups, t):
    x = rng.standard_normal((5, 3, 2, 4)) + 0.5
    found = direction_uniformity(torch.from_numpy(x), draws=generator("test"), groups=groups, t=t)
    assert found.value == pytest.approx(_by_loops(x, groups, t), abs=1e-12)
    assert (found.num_tokens, found.channels) == (40, 3)


def test_the_interval_leaves_out_one_image_at_a_time(rng):
    x = rng.standard_normal((6, 2, 2, 2)) + 1
    replicates = [_by_loops(np.delete(x, i, 0), list(range(5)), 2.0) for i in range(6)]
    expected = scipy.stats.t.ppf(0.975, 5) * math.sqrt(5 / 6 * np.sum((replicates - np.mean(replicates)) ** 2))
    assert direction_uniformity(torch.from_numpy(x), draws=generator("test")).half_width == pytest.approx(expected, rel=1e-6)
    assert direction_uniformity(torch.from_numpy(x[:2]), draws=generator("test")).half_width == math.inf


def test_equal_tokens_have_uniformity_0_and_their_length_does_not_matter(rng):
    token = rng.standard_normal((1, 4, 1, 1)) * rng.uniform(0.1, 10, (6, 1, 3, 3))
    assert direction_uniformity(torch.from_numpy(token), draws=generator("test")).value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 16, 300])
@pytest.mark.parametrize("t", [2.0, 1.0])
def test_the_limit_of_uniform_directions_is_a_bessel_function(channels, t):
    """E exp(k cos) on the sphere of d dimensions: Gamma(d/2) (2/k)^(d/2 - 1) I_(d/2 - 1)(k) (von Mises, Fisher)."""
    order, k = channels / 2 - 1, 2 * t
    log_mean = scipy.special.gammaln(channels / 2) + order * math.log(2 / k) + math.log(scipy.special.ive(order, k)) + k
    assert uniform_limit(channels, t=t) == pytest.approx(log_mean - 2 * t, abs=1e-9)


def test_the_limit_of_two_channels_is_that_of_the_circle():
    assert uniform_limit(2) == pytest.approx(math.log(math.exp(-4) * scipy.special.i0(4)), abs=1e-12)


@pytest.mark.parametrize("channels", [2, 5])
def test_gaussian_tokens_reach_the_limit_and_an_offset_leaves_it(channels):
    x = torch.randn(400, channels, 4, 4, generator=generator("test", channels), dtype=torch.float64)
    found = direction_uniformity(x, draws=generator("test"), most_tokens=3200)
    assert found.num_tokens == 3200
    assert abs(found.value - uniform_limit(channels)) < 2 * found.half_width < 0.1
    offset = direction_uniformity(x + 1, draws=generator("test"), most_tokens=3200)
    assert offset.value > found.value + 5 * found.half_width


def test_drawn_positions_estimate_the_value_of_all(rng):
    x = torch.from_numpy(rng.standard_normal((64, 3, 8, 8)) + 0.7)
    every = direction_uniformity(x, draws=generator("test"), most_tokens=64 * 64)
    some = direction_uniformity(x, draws=generator("test"), most_tokens=64 * 8)
    assert (every.num_tokens, some.num_tokens) == (4096, 512)
    assert some.value != every.value
    assert some.value == pytest.approx(every.value, abs=2 * some.half_width)


def test_one_image_one_photograph_and_tokens_without_direction_are_refused():
    x = torch.ones(4, 2, 2, 2)
    with pytest.raises(ValueError, match="different images, but all belong to 1 image"):
        direction_uniformity(x[:1], draws=generator("test"))
    with pytest.raises(ValueError, match="all belong to 1 image"):
        direction_uniformity(x, draws=generator("test"), groups=[5, 5, 5, 5])
    x[2, :, 1, 1] = 0
    with pytest.raises(ValueError, match="a token has length 0"):
        direction_uniformity(x, draws=generator("test"))
    with pytest.raises(ValueError, match="at least 1 channel"):
        uniform_limit(0)
