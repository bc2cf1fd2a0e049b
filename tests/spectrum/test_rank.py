"""Compare moments with numpy, and ranks with the cases of known rank in spectrum.md#health."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from smtool.spectrum import channel_moments, dead_channels, effective_rank


def white(num_channels: int, *, num_images: int = 64, side: int = 16) -> torch.Tensor:
    return torch.randn(num_images, num_channels, side, side, generator=torch.Generator().manual_seed(0))


def test_moments_equal_numpys_covariance(rng):
    x = rng.standard_normal((3, 5, 4, 6)) * np.arange(1, 6)[:, None, None] + 100
    moments = channel_moments(torch.from_numpy(x))
    positions = x.transpose(1, 0, 2, 3).reshape(5, -1)
    assert moments.num_positions == 72
    np.testing.assert_allclose(moments.mean.numpy(), positions.mean(1), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance.numpy(), np.cov(positions), rtol=0, atol=1e-10)
    np.testing.assert_allclose(moments.std.numpy(), positions.std(1, ddof=1), rtol=1e-12)


def test_adding_batches_equals_all_at_once(rng):
    x = torch.from_numpy(rng.standard_normal((7, 4, 5, 5)) + 1000)
    parts = channel_moments(x[:2]) + channel_moments(x[2:3]) + channel_moments(x[3:])
    whole = channel_moments(x)
    assert parts.num_positions == whole.num_positions
    assert_close(parts.mean, whole.mean, rtol=1e-12, atol=0)
    assert_close(parts.scatter, whole.scatter, rtol=1e-9, atol=1e-9)


def test_a_large_mean_does_not_drown_a_small_variance():
    x = white(3) * 1e-3 + 100
    assert channel_moments(x[:9] + 0).std.mean().item() == pytest.approx(1e-3, rel=0.02)


def test_white_channels_use_all_directions():
    rank = effective_rank(channel_moments(white(16)))
    assert (rank.entropy, rank.participation) == pytest.approx((16, 16), abs=0.05)
    assert (rank.entropy_correlation, rank.participation_correlation) == pytest.approx((16, 16), abs=0.05)


def test_copies_count_once():
    rank = effective_rank(channel_moments(white(8).repeat(1, 2, 1, 1)))
    assert (rank.entropy, rank.entropy_correlation) == pytest.approx((8, 8), abs=0.02)


def test_nearly_dead_channels_lower_the_rank_of_the_covariance_only_and_are_listed():
    x = white(16)
    x[:, 8:] *= 1e-4
    moments = channel_moments(x)
    rank = effective_rank(moments)
    assert (rank.entropy, rank.entropy_correlation) == pytest.approx((8, 16), abs=0.05)
    assert dead_channels(moments).tolist() == [False] * 8 + [True] * 8


def test_a_loud_channel_hides_the_others_from_the_covariance_only():
    """One of 16 channels has ten times the std: 2.1 (spectrum.md#health). Fractions in closed form: 100/115, 15 times 1/115."""
    x = white(16)
    x[:, 3] *= 10
    rank = effective_rank(channel_moments(x))
    shares = [100 / 115] + [1 / 115] * 15
    assert rank.entropy == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=0.02)
    assert rank.entropy == pytest.approx(2.1, abs=0.3)
    assert rank.participation == pytest.approx(1 / sum(p * p for p in shares), rel=0.02)
    assert rank.entropy_correlation == pytest.approx(16, abs=0.05)
    assert not dead_channels(channel_moments(x)).any()


def test_a_channel_is_dead_below_a_hundredth_of_the_loudest():
    x = white(3) * torch.tensor([5.0, 0.06, 0.04]).view(3, 1, 1)
    assert dead_channels(channel_moments(x)).tolist() == [False, False, True]


def test_a_constant_channel_is_dead_and_left_out_of_the_correlations():
    x = white(4)
    x[:, 1] = 7
    moments = channel_moments(x)
    rank = effective_rank(moments)
    assert dead_channels(moments).tolist() == [False, True, False, False]
    assert (rank.entropy, rank.entropy_correlation) == pytest.approx((3, 3), abs=0.01)


@pytest.mark.parametrize("turn", ["rotation", "scale"])
def test_turning_or_scaling_all_channels_changes_nothing_in_the_covariance(turn):
    x = white(6) * torch.arange(1, 7)[:, None, None]
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    changed = torch.einsum("dc,bchw->bdhw", rotation, x) if turn == "rotation" else 30 * x
    once, again = (effective_rank(channel_moments(y)) for y in (x, changed))
    assert again.entropy == pytest.approx(once.entropy, rel=1e-4)
    assert again.participation == pytest.approx(once.participation, rel=1e-4)


def test_too_few_positions_are_refused():
    assert effective_rank(channel_moments(white(16, num_images=10, side=4))).num_positions == 160
    with pytest.raises(ValueError, match=r"of 16 channels needs 160 positions .* but there are 144: take more images"):
        effective_rank(channel_moments(white(16, num_images=9, side=4)))


def test_latents_that_cannot_be_measured_are_refused():
    with pytest.raises(ValueError, match="no channel varies"):
        effective_rank(channel_moments(torch.ones(4, 2, 8, 8)))
    with pytest.raises(ValueError, match=r"latents \(B, C, h, w\)"):
        channel_moments(torch.ones(4, 8, 8))
    with pytest.raises(ValueError, match="of 3 and of 4 channels cannot be joined"):
        channel_moments(white(3)) + channel_moments(white(4))
