"""The controls give the results defined in spectrum.md#band-transfer, computed with scipy and loops."""

import numpy as np
import pytest
import scipy.fft
import torch
from torch.nn import functional as F

from smtool.errors import RecipeError
from smtool.tokenizers import open_tokenizer
from smtool.tokenizers.controls import CONTROLS

LOSSLESS = {"stretch", "stretch-scrambled", "space-to-depth", "block-dct"}


@pytest.fixture
def images(rng) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal((2, 3, 32, 48)))


def cells(x) -> np.ndarray:
    return scipy.fft.dctn(np.asarray(x), axes=(-2, -1), norm="ortho")


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_is_a_tokenizer_of_factor_8_whose_samples_are_its_means(name, images):
    tokenizer = open_tokenizer(f"control:{name}")
    posterior = tokenizer.encode(images)
    assert posterior.mean.shape == (2, *tokenizer.latent_shape(32, 48)) == (2, tokenizer.latent_channels, 4, 6)
    assert torch.equal(posterior.sample(torch.randn_like(posterior.mean)), posterior.mean)
    assert tokenizer.deterministic and tokenizer.can_decode and tokenizer.stats is None
    decoded = tokenizer.decode(posterior.mean)
    assert decoded.shape == images.shape
    assert torch.allclose(decoded, images, atol=1e-9) == (name in LOSSLESS)


def test_digests_of_controls_differ():
    assert len({open_tokenizer(f"control:{name}").digest for name in CONTROLS}) == len(CONTROLS)


def test_crop_keeps_the_low_cells_and_the_value_of_a_constant(images):
    tokenizer = open_tokenizer("control:crop")
    z = tokenizer.encode(images).mean
    np.testing.assert_allclose(cells(z), cells(images)[..., :4, :6] / 8, atol=1e-12)
    kept = np.zeros(images.shape)
    kept[..., :4, :6] = cells(images)[..., :4, :6]
    np.testing.assert_allclose(cells(tokenizer.decode(z)), kept, atol=1e-12)
    torch.testing.assert_close(tokenizer.encode(torch.full_like(images, 0.3)).mean, torch.full_like(z, 0.3))


def test_crop_half_decodes_only_below_half_of_the_latents_nyquist_frequency(images):
    tokenizer = open_tokenizer("control:crop-half")
    decoded = cells(tokenizer.decode(tokenizer.encode(images).mean))
    for u in range(4):
        for v in range(6):
            kept = (u / 4) ** 2 + (v / 6) ** 2 < 0.25
            expected = cells(images)[..., u, v] if kept else 0.0
            np.testing.assert_allclose(decoded[..., u, v], expected, atol=1e-12)


def test_scrambled_reverses_the_cells_and_puts_them_back(images):
    z = open_tokenizer("control:scrambled").encode(images).mean
    np.testing.assert_allclose(cells(z), cells(images)[..., :4, :6][..., ::-1, ::-1] / 8, atol=1e-12)
    crop = open_tokenizer("control:crop")
    unscrambled = open_tokenizer("control:scrambled").decode(z)
    torch.testing.assert_close(unscrambled, crop.decode(crop.encode(images).mean))


@pytest.mark.parametrize(("name", "flip"), [("stretch", 1), ("stretch-scrambled", -1)])
def test_stretch_gives_neighbouring_cells_to_one_latent_cell(name, flip, images):
    z, x = cells(open_tokenizer(f"control:{name}").encode(images).mean)[..., ::flip, ::flip], cells(images)
    for colour in range(3):
        for a in range(8):
            for b in range(8):
                np.testing.assert_allclose(z[:, 64 * colour + 8 * a + b], x[:, colour, a::8, b::8], atol=1e-12)


def test_block_dct_holds_the_coefficients_of_each_block(images):
    z = open_tokenizer("control:block-dct").encode(images).mean
    for i in range(4):
        for j in range(6):
            block = cells(images[..., 8 * i : 8 * i + 8, 8 * j : 8 * j + 8])
            np.testing.assert_allclose(z[..., i, j].reshape(2, 3, 8, 8), block, atol=1e-12)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_pooling_controls_average_blocks_and_interpolate(mode, images):
    tokenizer = open_tokenizer(f"control:{mode}")
    z = tokenizer.encode(images).mean
    torch.testing.assert_close(z, images.unflatten(-1, (6, 8)).unflatten(-3, (4, 8)).mean((-3, -1)))
    torch.testing.assert_close(tokenizer.decode(z), F.interpolate(z, size=(32, 48), mode=mode))


def test_the_error_for_an_unknown_control_lists_all_controls():
    with pytest.raises(RecipeError, match=r"unknown control 'crops'[\s\S]*crop, crop-half, scrambled"):
        open_tokenizer("control:crops")
