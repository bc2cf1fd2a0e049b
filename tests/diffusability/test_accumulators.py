import numpy as np
import pytest
import torch

from smtool.checkpoints import write_autoencoder
from smtool.diffusability.inputs.accumulators import LatentRings, measured_stats
from smtool.diffusability.inputs.subjects import Subject
from smtool.errors import CheckpointError
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing
from smtool.spectrum import PHYSICAL, REFERENCE, channel_moments
from smtool.tokenizers import Tokenizer, open_tokenizer


@pytest.fixture
def codec(tmp_path) -> Tokenizer:
    with initializing(0, "test"):
        autoencoder = SDVAE(downsample=4, latent_channels=3, channels=(8, 8, 8), blocks_per_level=1, norm_groups=4).build()
    write_autoencoder(tmp_path / "tiny.safetensors", autoencoder, {})
    return open_tokenizer(str(tmp_path / "tiny.safetensors"))


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def gathered(codec, images, batch):
    rings = LatentRings(Subject("test", codec), [PHYSICAL, REFERENCE.loss], keep=4)
    for first in range(0, len(images), batch):
        rings.add(images[first:first + batch], first)
    return rings


def test_what_is_measured_does_not_depend_on_the_batch(codec, images):
    one, all_at_once = gathered(codec, images, 1), gathered(codec, images, 6)
    for kind in ("sample", "mean"):
        a, b = (rings.table(kind, PHYSICAL).spectrum().power for rings in (one, all_at_once))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(one.first_latents, all_at_once.first_latents, rtol=1e-4, atol=1e-6)
    assert len(one.first_latents) == 4
    a, b = (rings.posteriors.channels.covariance for rings in (one, all_at_once))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-9)


def test_encoding_in_smaller_batches_changes_nothing(codec, images, monkeypatch):
    whole = gathered(codec, images, 6)
    monkeypatch.setattr("smtool.diffusability.inputs.accumulators.images_at_once", lambda height, width: 2)
    parts = gathered(codec, images, 6)
    torch.testing.assert_close(parts.first_latents, whole.first_latents, rtol=1e-4, atol=1e-6)
    a, b = (rings.table("sample", PHYSICAL).spectrum().power for rings in (parts, whole))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_sample_and_mean_differ_by_the_posterior_noise(codec, images):
    rings = gathered(codec, images, 6)
    with torch.no_grad():
        posterior = codec.encode(images)
    mean, sample = (rings.table(kind, PHYSICAL).spectrum().mean() for kind in ("mean", "sample"))
    assert (sample > mean).all()
    assert (sample - mean)[-1] == pytest.approx(posterior.std.square().mean().item(), rel=0.3)      # the noise is white


def test_statistics_are_those_of_the_samples_or_the_autoencoders_own(codec, images):
    rings = gathered(codec, images[:4], 3)
    stats = rings.stats("digest")
    assert (stats.kind, stats.count, stats.data) == ("channel", 4, "digest")
    samples = rings.first_latents.double().transpose(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(stats.mean, samples.mean(1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(stats.std, samples.std(1), rtol=1e-6)
    codec.stats = LatentStats("scalar", torch.zeros(1), torch.ones(1), 9, "own")
    assert rings.stats("digest") is codec.stats


def test_merged_moments_are_those_of_numpy():
    noise = torch.randn(7, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    latents = noise * torch.tensor([1.0, 30.0]).view(1, 2, 1, 1) + 100
    stats = measured_stats(channel_moments(latents[:3]) + channel_moments(latents[3:]), images=7, data="d")
    expected = latents.double().transpose(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(stats.mean, expected.mean(1), rtol=1e-6)
    np.testing.assert_allclose(stats.std, expected.std(1), rtol=1e-6)


def test_a_constant_channel_normalizes_to_zero():
    latents = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    latents[:, 1] = 7.0
    stats = measured_stats(channel_moments(latents), images=3, data="d")
    assert stats.std[1] == 1
    assert stats.normalize(latents)[:, 1].abs().max() == 0


def test_latents_that_are_not_finite_are_named(codec, images):
    rings = LatentRings(Subject("runs/broken", codec), [PHYSICAL], keep=0)
    with torch.no_grad():
        codec.network.quant_conv.bias[0] = torch.nan
    with torch.no_grad(), pytest.raises(CheckpointError, match=r"runs/broken: latents of the batch .* at image 0 hold NaN"):
        rings.add(images, 0)
