"""What a codec says of itself, whatever it was opened from, and images that do not fit it."""

import hashlib

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from smtool.errors import CheckpointError
from smtool.interop import write_autoencoder
from smtool.interop.codec import open_codec
from smtool.networks.autoencoder import SDVAE

SECTION = SDVAE(downsample=4, latent_channels=3, channels=(32, 32, 64), blocks_per_level=1)


@pytest.fixture
def run(tmp_path):
    write_autoencoder(tmp_path / "dsm" / "ckpt.safetensors", SECTION.build(), {"recipe": {"seed": 3}})
    return tmp_path / "dsm"


def test_our_own_run(run):
    codec = open_codec(str(run))
    assert (codec.label, codec.source, codec.recipe) == ("dsm", str(run), {"seed": 3})
    assert (codec.downsample, codec.latent_channels, codec.deterministic, codec.can_decode) == (4, 3, False, True)
    assert codec.architecture == "AutoencoderKL f4, 3 channels, asymmetric padding"
    assert len(codec.digest) == len(hashlib.sha256().hexdigest())
    assert not any(parameter.requires_grad for parameter in codec.parameters())


def test_a_foreign_file_has_the_digest_of_the_same_weights_elsewhere(tmp_path):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    theirs = AutoencoderKL(block_out_channels=(32, 32), **blocks)
    theirs.save_pretrained(tmp_path / "vae")
    save_file(theirs.state_dict(), tmp_path / "vae.safetensors")
    torch.save(theirs.state_dict(), tmp_path / "vae.pt")
    codecs = [open_codec(str(tmp_path / name)) for name in ("vae", "vae.safetensors", "vae.pt")]
    assert len({codec.digest for codec in codecs}) == 1
    assert [codec.recipe for codec in codecs] == [{}, {}, {}]
    assert codecs[0].digest != open_codec(str(tmp_path / "vae"), downsample_pad="symmetric").digest


def test_images_that_do_not_fit_are_refused_with_what_would(run):
    codec = open_codec(str(run))
    assert codec.latent_size(16, 24) == (4, 6)
    with pytest.raises(ValueError, match="smaller than one latent cell of dsm, 4x4 pixels"):
        codec.encode(torch.zeros(1, 3, 2, 16))
    with pytest.raises(ValueError, match="multiples of 4, such as 16x20"):
        codec.encode(torch.zeros(1, 3, 18, 20))


def test_nothing_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no such file, folder or run"):
        open_codec("sd-vae")
