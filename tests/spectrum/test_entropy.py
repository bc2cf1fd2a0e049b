"""Entropies of channels against numpy: percentiles, histogram and logarithm of another library."""

import numpy as np
import pytest
import torch

from smtool.spectrum import channel_entropy, entropy_weights, percentile_bound


def numpy_entropy(values: np.ndarray) -> float:
    low, high = np.percentile(values, [1.75, 98.25])
    counts, _ = np.histogram(values[(values > low) & (values < high)], bins=100, range=(-1, 1))
    share = counts / counts.sum()
    return float(-np.sum(share * np.log2(share + 1e-9)))


def spread_latents(rng: np.random.Generator, channels: int) -> np.ndarray:
    """Channels of falling spread, as those of DCT coefficients."""
    return rng.standard_normal((40, channels, 6, 5)) * 0.5 ** np.arange(channels)[:, None, None]


def test_entropy_of_separate_channels_equals_numpys(rng: np.random.Generator) -> None:
    latents = spread_latents(rng, 5)
    expected = [numpy_entropy(latents[:, k]) for k in range(5)]
    np.testing.assert_allclose(channel_entropy(torch.from_numpy(latents)).numpy(), expected, rtol=0, atol=1e-12)


def test_blocks_of_a_group_share_one_population(rng: np.random.Generator) -> None:
    latents = spread_latents(rng, 8)
    pooled = [numpy_entropy(latents[:, [k, 2 + k, 4 + k]]) for k in range(2)]
    alone = [numpy_entropy(latents[:, k]) for k in (6, 7)]
    groups = ((3, 2), (1, 2))
    np.testing.assert_allclose(channel_entropy(torch.from_numpy(latents), groups).numpy(), pooled * 3 + alone, atol=1e-12)
    weights = entropy_weights(torch.from_numpy(latents), groups)
    assert weights.dtype == torch.float64
    np.testing.assert_allclose(weights[:2].numpy(), np.array(pooled) / np.mean(pooled), atol=1e-12)
    assert torch.allclose(weights[:6].mean(), torch.ones((), dtype=torch.float64))
    assert torch.allclose(weights[6:].mean(), torch.ones((), dtype=torch.float64))


def test_a_channel_that_hardly_varies_has_one_bit(rng: np.random.Generator) -> None:
    latents = torch.from_numpy(rng.standard_normal((50, 1, 8, 8)) * 1e-4)
    assert channel_entropy(latents).item() == pytest.approx(1, abs=1e-3)


def test_bound_is_the_larger_percentile(rng: np.random.Generator) -> None:
    values = rng.exponential(size=1001) - 0.3
    expected = np.abs(np.percentile(values, [1.75, 98.25])).max()
    assert percentile_bound(torch.from_numpy(values)) == pytest.approx(expected, abs=1e-12)
    assert percentile_bound(torch.from_numpy(-values)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("latents", "groups", "says"), [
    (torch.zeros(2, 3, 4), None, r"\(2, 3, 4\)"),
    (torch.zeros(2, 3, 4, 4), ((1, 2), (1, 2)), "3"),
    (torch.full((2, 3, 4, 4), 7.0), None, "no entropy"),
])
def test_bad_input_is_named(latents: torch.Tensor, groups: tuple[tuple[int, int], ...] | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        entropy_weights(latents, groups)
