"""The distance from the original encoder, restated with scipy's DCT."""

import numpy as np
import pytest
import scipy.fft
import torch

from smtool.checkpoints import write_autoencoder
from smtool.errors import RecipeError
from smtool.features.frozen import frozen_digests
from smtool.networks.posterior import Posterior
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing
from smtool.regularizers import Encoding, Shapes, Stay
from smtool.training.terms import AdaptiveWeight

SECTION = SDVAE(downsample=4, latent_channels=3, norm_groups=4, channels=(4, 4, 8), blocks_per_level=1)
SHAPES = Shapes((4, 3, 32, 24), (4, 3, 8, 6))


@pytest.fixture
def original(tmp_path):
    with initializing(0, "test"):
        network = SECTION.build()
    write_autoencoder(tmp_path / "ckpt.safetensors", network, {})
    return str(tmp_path / "ckpt.safetensors"), network


def _images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 32, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _moved(network, images):
    """An encoding whose mean differs from the original's, with its gradient, and the difference."""
    means = network.encode(images).mean.detach()
    change = torch.randn(means.shape, generator=torch.Generator().manual_seed(2))
    mean = (means + change).requires_grad_()
    return Encoding(images, Posterior(mean, torch.zeros_like(mean)), mean), change.double().numpy(), means.double().numpy()


@pytest.mark.parametrize("bands", ["all", "low", "high", (1, 4)])
def test_the_penalty_is_the_mean_square_in_units_of_std_over_the_bands(original, bands):
    path, network = original
    method = Stay(original=path, bands=bands).build(SHAPES, None)
    images = _images()
    method.measure(images)
    encoding, change, means = _moved(network, images)
    scaled = change / means.std((0, 2, 3), ddof=1)[None, :, None, None]
    coefficients = scipy.fft.dctn(scaled, axes=(-2, -1), norm="ortho")
    ring = np.minimum(np.floor(4 * np.hypot(np.arange(8)[:, None] / 8, np.arange(6)[None] / 6)), 3) + 1
    kept = {"all": (1, 2, 3, 4), "low": (1, 2), "high": (3, 4)}.get(bands, bands)
    expected = np.square(coefficients[..., np.isin(ring, kept)]).mean()
    found = method.penalty(encoding, None)
    assert found.item() == pytest.approx(expected, rel=1e-4)      # float32 encodings
    found.backward()
    assert encoding.latents.grad.abs().sum() > 0


def test_the_original_itself_has_no_distance_and_is_neither_trained_nor_saved(original):
    path, network = original
    method = Stay(original=path).build(SHAPES, None)
    images = _images()
    posterior = network.encode(images)
    assert method.penalty(Encoding(images, posterior, posterior.mean), None).item() < 1e-12      # float32 rounding
    assert list(method.parameters()) == [] and set(method.state_dict()) == {"std"}
    assert list(frozen_digests(method).values()) == [network.digest]


def test_images_of_another_size_are_compared_too(original):
    """EQ-VAE encodes smaller images."""
    path, network = original
    method = Stay(original=path, bands="low").build(SHAPES, None)
    encoding, *_ = _moved(network, _images()[..., :16, :12])
    assert method.penalty(encoding, None).isfinite()


def test_the_weight_is_adaptive_if_asked(original):
    path, _ = original
    assert Stay(original=path).build(SHAPES, None).adaptive_weight is None
    assert Stay(original=path, adaptive=True).build(SHAPES, None).adaptive_weight == AdaptiveWeight("encoder")


def test_latents_of_another_shape_are_refused_with_both_shapes(original):
    path, _ = original
    other = Shapes((4, 3, 32, 24), (4, 8, 4, 3))
    with pytest.raises(RecipeError, match=r"stay\.original: .* has latents \(3, 8, 6\) .* has \(8, 4, 3\)"):
        Stay(original=path).build(other, None)


def test_impossible_keys_are_problems():
    assert [key for key, _ in Stay().problems(SHAPES)] == ["original"]
    assert [key for key, _ in Stay(original="x", bands=()).problems(SHAPES)] == ["bands"]
    tiny = Shapes((4, 3, 2, 2), (4, 3, 1, 1))
    assert "has no cell in bands (3, 4)" in dict(Stay(original="x", bands="high").problems(tiny))["bands"]
    with pytest.raises(ValueError, match="bands"):
        Stay(original="x", bands=(5,))
