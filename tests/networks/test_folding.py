"""Folding an affine map of latents into an SD-VAE: latents are mapped, reconstructions stay."""

import pytest
import torch
from torch.testing import assert_close

from smtool.networks.folding import folded
from smtool.networks.sd_vae import SDVAE
from smtool.randomness import initializing

SCALE, SHIFT = torch.tensor([2.0, -0.5, 1.25]).double(), torch.tensor([3.0, -1.0, 0.25]).double()


@pytest.mark.parametrize(
    "config",
    [{}, {"quant_convs": False}, {"quant_convs": False, "padding": "reflect"}, {"downsample_pad": "symmetric"}],
    ids=["1x1 convolutions", "none", "none, reflected edges", "symmetric"],
)
def test_latents_are_mapped_and_reconstructions_stay(config):
    with initializing(0):
        before = SDVAE(
            downsample=4, latent_channels=3, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1, **config
        ).build().double().eval()  # fmt: skip
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    after = folded(before, SCALE, SHIFT).double()
    old, new = before.encode(images), after.encode(images)
    scale, shift = SCALE.view(1, 3, 1, 1), SHIFT.view(1, 3, 1, 1)
    tolerance = {"rtol": 0, "atol": 1e-5}      # the folded weights are float32
    assert_close(new.mean, scale * old.mean + shift, **tolerance)
    assert_close(new.std, scale.abs() * old.std, **tolerance)
    assert_close(after.decode(new.mean), before.decode(old.mean), **tolerance)      # edges too
    assert_close(after.decode(scale * old.mean + shift), before.decode(old.mean), **tolerance)
    assert after.digest != before.digest
    assert (after.config.downsample_pad, after.config.padding) == (before.config.downsample_pad, before.config.padding)
