"""Tokenizers of images of one to four channels, and of rectangles."""

import pytest
import torch
from torch.testing import assert_close

from smtool.checkpoints import write_autoencoder
from smtool.networks.sd_vae import SDVAE
from smtool.networks.taesd import TAESD
from smtool.tokenizers import Tokenizer, open_tokenizer

CONTROLS = ("crop", "stretch", "space-to-depth", "block-dct", "bilinear")
LOSSLESS = ("pixels", "control:stretch", "control:space-to-depth", "control:block-dct")
MODULE = """
import torch.nn.functional as F
class Pool:
    def encode(self, x):
        return F.avg_pool2d(x, 4)
    def decode(self, z):
        return F.interpolate(z, scale_factor=4.0)
class Turned:
    def encode(self, x):
        return F.adaptive_avg_pool2d(x, (x.shape[-1] // 4, x.shape[-2] // 4))
"""


def images(channels: int) -> torch.Tensor:
    return 2 * torch.rand(2, channels, 16, 24, generator=torch.Generator().manual_seed(0)) - 1


def checked(tokenizer: Tokenizer, channels: int) -> torch.Tensor:
    """The reconstruction, after a comparison of shapes with those that the tokenizer states."""
    x = images(channels)
    mean = tokenizer.encode(x).mean
    assert tokenizer.image_channels == channels
    assert mean.shape == (2, *tokenizer.latent_shape(16, 24))
    decoded = tokenizer.decode(mean)
    assert decoded.shape == x.shape
    return decoded


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["pixels", *(f"control:{name}" for name in CONTROLS)])
def test_plain_arithmetic_takes_any_number_of_channels(name, channels):
    tokenizer = open_tokenizer(name, image_channels=channels)
    decoded = checked(tokenizer, channels)
    if name in LOSSLESS:
        assert_close(decoded, images(channels), rtol=0, atol=1e-5)
    assert (tokenizer.digest == open_tokenizer(name).digest) == (channels == 3)
    alone = open_tokenizer(name, image_channels=1)
    assert_close(alone.decode(alone.encode(images(channels)[:, -1:]).mean), decoded[:, -1:])      # channels do not mix


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("table", [
    SDVAE(downsample=4, latent_channels=2, channels=(8, 8, 8), norm_groups=4, blocks_per_level=1), TAESD(width=8),
])  # fmt: skip
def test_networks_take_the_channels_of_their_table(table, channels, tmp_path):
    table = table.model_copy(update={"image_channels": channels})
    made = table.build()
    decoded = checked(made, channels)
    write_autoencoder(tmp_path / "ckpt.safetensors", made, {})
    opened = open_tokenizer(tmp_path)
    assert_close(checked(opened, channels), decoded)
    if channels == 1 and isinstance(table, TAESD):
        for half in ("encoder", "decoder"):
            torch.save(getattr(made, half).state_dict(), tmp_path / f"tae_{half}.pth")
        assert_close(checked(open_tokenizer(tmp_path / "tae_encoder.pth"), 1), decoded)


def test_an_object_is_tested_with_the_channels_and_the_size_of_the_images(tmp_path, monkeypatch):
    (tmp_path / "mine_for_channels.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    opened = open_tokenizer("mine_for_channels:Pool", image_size=[16, 24], image_channels=1)
    assert (opened.downsample, opened.latent_channels) == (4, 1)
    checked(opened, 1)
    with pytest.raises(Exception, match=r"encode returns latents of \(3, 1, 6, 4\) for images of \(3, 1, 16, 24\)"):
        open_tokenizer("mine_for_channels:Turned", image_size=[16, 24], image_channels=1)
