"""Posterior compared with torch.distributions; statistics compared with direct computations."""

import json

import numpy as np
import pytest
import scipy.fft
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from smtool.networks.posterior import LatentStats, Posterior
from smtool.spectrum import Recolouring


def test_kl_equals_that_of_torch_distributions():
    posterior = Posterior.from_moments(torch.randn(2, 6, 4, 5, dtype=torch.float64))
    expected = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0)).sum((1, 2, 3))
    assert_close(posterior.kl(), expected)


def test_kl_of_the_standard_normal_is_zero():
    assert_close(Posterior(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)).kl(), torch.zeros(2))


def test_logvar_is_clamped_and_mean_is_not():
    posterior = Posterior.from_moments(torch.tensor([-100.0, 100.0, -100.0, 100.0]).view(1, 4, 1, 1))
    assert posterior.mean.flatten().tolist() == [-100.0, 100.0]
    assert posterior.logvar.flatten().tolist() == [-30.0, 20.0]


def test_a_sample_without_noise_is_the_mode_and_a_unit_of_noise_is_one_std():
    posterior = Posterior.from_moments(torch.randn(1, 4, 3, 3))
    assert torch.equal(posterior.sample(torch.zeros_like(posterior.mean)), posterior.mode())
    assert_close(posterior.sample(torch.ones_like(posterior.mean)) - posterior.mean, (posterior.logvar / 2).exp())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_moments_become_float32(half):
    assert Posterior.from_moments(torch.zeros(1, 4, 2, 2, dtype=half)).kl().dtype == torch.float32


@pytest.mark.parametrize(
    "stats",
    [
        LatentStats("channel", torch.tensor([1.0, -2.0]), torch.tensor([0.5, 4.0]), count=10, data="abc"),
        LatentStats("scalar", torch.tensor([1.0]), torch.tensor([0.5]), count=0, data="published"),
        LatentStats("scalar", torch.tensor([1.0]), torch.tensor([0.5]), count=3, data="abc", residual=torch.tensor([0.25])),
    ],
)
def test_statistics_normalize_invert_and_survive_json(stats):
    latents = torch.randn(3, 2, 4, 4)
    normalized = stats.normalize(latents)
    assert_close(normalized[:, 0], (latents[:, 0] - 1.0) / 0.5)
    assert_close(stats.denormalize(normalized), latents)
    again = LatentStats.from_metadata(json.loads(json.dumps(stats.to_metadata())))
    assert (again.kind, again.count, again.data) == (stats.kind, stats.count, stats.data)
    assert torch.equal(again.mean, stats.mean) and torch.equal(again.std, stats.std)
    if stats.residual is not None:
        assert torch.equal(again.residual, stats.residual)


def test_spectral_statistics_filter_standardized_latents_exactly_and_survive_json():
    gains = torch.linspace(0.2, 5.0, 10, dtype=torch.float64).repeat(2, 1)
    filtered = Recolouring("white", (8, 8), gains)
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 4.0])
    stats = LatentStats("spectral", mean, std, 10, "abc", torch.zeros(2), filtered)
    latents = torch.randn(3, 2, 8, 8) * 3
    normalized = stats.normalize(latents)
    spectrum = scipy.fft.dctn(((latents - mean.view(2, 1, 1)) / std.view(2, 1, 1)).numpy(), axes=(-2, -1), norm="ortho")
    expected = scipy.fft.idctn(spectrum * filtered.cell_gains.numpy(), axes=(-2, -1), norm="ortho")
    assert_close(normalized, torch.from_numpy(expected).float())
    assert normalized.dtype == torch.float32
    assert_close(stats.denormalize(normalized), latents, rtol=0, atol=1e-5)
    again = LatentStats.from_metadata(json.loads(json.dumps(stats.to_metadata())))
    assert (again.kind, again.name) == ("spectral", "spectral (flatten = white)")
    assert torch.equal(again.normalize(latents), normalized)
    with pytest.raises(ValueError, match=r"recolouring was measured on latents of \(2, 8, 8\), not \(2, 4, 4\)"):
        stats.normalize(latents[..., :4, :4])


def test_old_statistics_without_residual_have_residual_0_if_measured_and_none_if_published():
    stored = {"kind": "scalar", "mean": [0.5], "std": [2.0], "data": "abc"}
    assert LatentStats.from_metadata({**stored, "count": 9}).residual.tolist() == [0.0]
    assert LatentStats.from_metadata({**stored, "count": 0}).residual is None


def test_statistics_of_patches_normalize_as_a_batch_norm_of_patches_and_survive_json(rng):
    """Patches are cut as in FLUX.2's pipeline of diffusers: view, permute, reshape."""
    latents = torch.from_numpy(rng.normal(size=(3, 2, 4, 6))).float()
    norm = torch.nn.BatchNorm2d(8, affine=False, eps=0).eval()
    norm.running_mean.copy_(torch.linspace(-1, 1, 8))
    norm.running_var.copy_(torch.linspace(0.5, 3, 8))
    stats = LatentStats("patch", norm.running_mean, norm.running_var.sqrt(), 0, "published", torch.zeros(8))
    patches = latents.view(3, 2, 2, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).reshape(3, 8, 2, 3)
    expected = norm(patches).view(3, 2, 2, 2, 2, 3).permute(0, 1, 4, 2, 5, 3).reshape(3, 2, 4, 6)
    assert_close(stats.normalize(latents), expected)
    assert_close(stats.denormalize(expected), latents)
    assert_close(stats.groups(latents), patches.flatten(2))
    again = LatentStats.from_metadata(json.loads(json.dumps(stats.to_metadata())))
    assert again.kind == "patch" and torch.equal(again.mean, stats.mean) and torch.equal(again.std, stats.std)
    assert stats.fits((2, 4, 4)) and not stats.fits((8, 4, 4)) and not stats.fits((1, 4, 4))
    with pytest.raises(ValueError, match="latents of 3x6 cells have no whole 2x2 patches"):
        stats.normalize(latents[:, :, :3])


def test_statistics_of_patches_become_those_of_channels(rng):
    """Mean and std of all values of a channel, against numpy."""
    latents = rng.normal(size=(50, 2, 4, 4)) * np.array([1.0, 3.0])[:, None, None]
    latents[:, :, ::2, 1::2] += 2
    parts = np.stack([latents[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], axis=2)
    mean, std = (torch.from_numpy(values.reshape(8)).float() for values in (parts.mean((0, 3, 4)), parts.std((0, 3, 4))))
    found = LatentStats("patch", mean, std, 50, "abc").per_channel()
    assert found.kind == "channel"
    assert_close(found.mean, torch.from_numpy(latents.mean((0, 2, 3))).float())
    assert_close(found.std, torch.from_numpy(latents.std((0, 2, 3))).float())
    assert found.per_channel() is found
