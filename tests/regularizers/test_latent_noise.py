"""Noise on latents, restated in numpy, with its distribution; latents normalized over channels."""

import numpy as np
import pytest
import torch

from smtool.checkpoints import write_autoencoder
from smtool.errors import CheckpointError, RecipeError
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing, streams
from smtool.recipe import TrainAE, load
from smtool.regularizers import LatentNoise, Pair, Shapes
from smtool.tokenizers import open_tokenizer

SHAPES = Shapes((3, 3, 16, 24), (3, 5, 4, 6))
SMALL = {"downsample": 4, "latent_channels": 3, "norm_groups": 4, "channels": (4, 4, 8), "blocks_per_level": 1}
SOURCES = {"nextstep": 0.5, "rae": 0.8, "l-detok": 3.0}


def _pair(shape=(3, 5, 4, 6)) -> Pair:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    return Pair(torch.zeros(3, 3, 16, 24), latents, 0.5)


@pytest.mark.parametrize("kind", SOURCES)
def test_noisy_latents_and_their_gradient_are_the_published_formula(kind):
    level = SOURCES[kind]
    method = LatentNoise(kind=kind, level=level).build(SHAPES, None)
    draw = method.draw(streams(0, 1, "autoencoder", batch=3), SHAPES)
    pair = _pair()
    (noisy,) = method.before_decode([pair], draw)
    u, eps, z = draw.u.double().numpy(), draw.eps.double().numpy(), pair.latents.detach().numpy()
    share = np.array([1 - x for x in u]) if kind == "l-detok" else np.ones(3)
    expected = np.stack([share[b] * z[b] + level * u[b] * eps[b] for b in range(3)])
    np.testing.assert_allclose(noisy.latents.detach().numpy(), expected, rtol=1e-12)
    assert noisy.images is pair.images and noisy.weight == 0.5
    upstream = torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noisy.latents.backward(upstream)
    np.testing.assert_allclose(pair.latents.grad.numpy(), share[:, None, None, None] * upstream.numpy(), rtol=1e-12)


def test_noise_levels_are_uniform_per_image_and_follow_the_image():
    method = LatentNoise(kind="rae", level=0.8).build(SHAPES, None)
    levels, squares = [], []
    for step in range(300):
        whole = streams(0, step, "autoencoder", batch=6)
        first, second = (method.draw(part, SHAPES) for part in (whole.at(0, 3), whole.at(3, 6)))
        both = method.draw(whole, Shapes((6, 3, 16, 24), (6, 5, 4, 6)))
        assert torch.equal(torch.cat([first.eps, second.eps]), both.eps) and torch.equal(torch.cat([first.u, second.u]), both.u)
        levels += both.u.tolist()
        squares.append(both.eps.square().mean().item())
    found = np.array(levels)
    assert np.abs(np.sort(found) - np.linspace(0, 1, len(found))).max() < 0.04      # Kolmogorov-Smirnov, 1.5 times the 1 % limit
    assert abs(np.mean(squares) - 1) < 0.01      # sd 0.003


def test_raes_discriminator_sees_no_noise_and_the_others_do():
    pair = _pair()
    for kind in SOURCES:
        method = LatentNoise(kind=kind, level=1.0).build(SHAPES, None)
        (found,) = method.before_decode([pair], method.draw(streams(0, 1, "discriminator", batch=3), SHAPES))
        assert (found is pair) == (kind == "rae")


def test_smaller_latents_get_noise_too():
    """EQ-VAE encodes smaller images."""
    method = LatentNoise(kind="rae", level=1.0).build(SHAPES, None)
    (found,) = method.before_decode([_pair((3, 5, 2, 3))], method.draw(streams(0, 1, "autoencoder", batch=3), SHAPES))
    assert found.latents.shape == (3, 5, 2, 3)


def test_normalized_latents_have_mean_0_and_variance_1_over_channels_in_every_cell():
    with initializing(0, "test"):
        network, plain = (SDVAE(**SMALL, latent_norm=norm).build() for norm in ("channels", "none"))
    plain.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    raw, found = plain.encode(images).mean.detach().double().numpy(), network.encode(images)
    expected = (raw - raw.mean(1, keepdims=True)) / np.sqrt(raw.var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found.mean.detach().numpy(), expected, atol=1e-4)
    assert torch.equal(found.sample(torch.ones_like(found.mean)), found.mean)
    assert network.deterministic and not plain.deterministic and network.digest != plain.digest


def test_a_checkpoint_keeps_the_normalization_and_diffusers_refuses_it(tmp_path, command):
    network = SDVAE(**SMALL, latent_norm="channels").build()
    write_autoencoder(tmp_path / "ckpt.safetensors", network, {})
    opened = open_tokenizer(str(tmp_path / "ckpt.safetensors"))
    assert opened.deterministic and opened.digest == network.digest
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(opened.encode(images).mean, network.encode(images).mean)
    arguments = ("export", str(tmp_path / "ckpt.safetensors"), "--to", "diffusers", "--out", str(tmp_path / "out"))
    code, _, said = command(*arguments)
    assert code == CheckpointError.exit_code and "normalizes its latents over channels" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("change", "said"), [
    (["regularizers.latent_noise.kind=nextstep"], r'latent_noise\.kind: "nextstep" needs latents that are normalized'),
    (["regularizers.latent_noise.kind=nextstep", "model={kind='taesd'}"], r"latent_noise\.kind: .*latent_norm"),
    (["model.latent_norm=channels", "regularizers.kl={}"], r"regularizers\.kl: cannot be used"),
    (["model.latent_norm=channels", "model.latent_channels=1"], r"model\.latent_norm: .*at least 2 latent channels"),
    (["regularizers.latent_noise.level=0"], r"latent_noise\.level: must be greater than 0"),
    (["regularizers.latent_noise.level="], r"latent_noise\.level: is required"),
    (["regularizers.latent_noise.kind=gauss"], r"latent_noise\.kind: must be 'nextstep', 'rae' or 'l-detok'"),
])
def test_wrong_input_is_refused_with_its_key(change, said):
    with pytest.raises(RecipeError, match=said):
        load("latent-noise", TrainAE, change)


def test_noise_is_added_before_dsm_low_passes_latents():
    tables = load("latent-noise", TrainAE, ["regularizers.dsm={}", "regularizers.esm={}"]).tables
    assert list(tables.regularizers.present) == ["esm", "latent_noise", "dsm"]
