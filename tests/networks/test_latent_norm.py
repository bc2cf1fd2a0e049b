import torch
from torch import nn
from torch.testing import assert_close

from smtool.networks.latent_norm import LatentNorm
from smtool.networks.posterior import LatentStats

STATS = LatentStats("channel", torch.tensor([0.5, -1.0, 3.0]), torch.tensor([2.0, 0.25, 1e-3]), 10, "d")


def pair() -> tuple[LatentNorm, nn.BatchNorm2d]:
    mine, theirs = LatentNorm(3, momentum=0.3, eps=1e-4), nn.BatchNorm2d(3, momentum=0.3, eps=1e-4, affine=False)
    mine.start_from(STATS)
    theirs.running_mean.copy_(STATS.mean)
    theirs.running_var.copy_(STATS.std**2)
    return mine, theirs


def test_it_equals_batch_norm_in_both_modes_and_has_no_parameters():
    mine, theirs = pair()
    for number in range(3):
        latents = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(number)) * 2 + 1
        assert_close(mine.running(latents), theirs.eval()(latents), rtol=0, atol=0)
        assert_close(mine(latents), theirs.train()(latents), rtol=0, atol=0)
    assert_close(mine.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    assert mine.num_batches_tracked == 3 and not list(mine.parameters())


def test_its_statistics_undo_its_normalization_also_of_tiny_latents():
    """A std of 1e-3 is a tenth of sqrt(eps)."""
    mine, _ = pair()
    latents = STATS.mean.view(1, -1, 1, 1) + STATS.std.view(1, -1, 1, 1) * torch.randn(2, 3, 4, 4)
    stats = mine.stats("x")
    assert_close(stats.denormalize(mine.running(latents)), latents, rtol=1e-5, atol=1e-6)
    assert_close(stats.normalize(latents), mine.running(latents), rtol=1e-5, atol=1e-5)
    assert (stats.kind, stats.count, stats.data) == ("channel", 0, "x")
    assert_close(stats.std, (STATS.std**2 + 1e-4).sqrt())
    later = LatentStats.from_metadata(stats.to_metadata())
    assert_close((later.mean, later.std, later.residual), (stats.mean, stats.std, None))


def test_statistics_are_a_copy_that_later_batches_leave_unchanged():
    mine, _ = pair()
    stats = mine.stats("x")
    mine(torch.randn(4, 3, 5, 6))
    assert torch.equal(stats.mean, STATS.mean) and not torch.equal(mine.running_mean, STATS.mean)
