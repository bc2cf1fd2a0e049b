"""AutoencoderDC and AutoencoderTiny: what diffusers computes, with their scale, through a codec."""

import sys

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderTiny
from torch.testing import assert_close

from smtool.errors import CheckpointError
from smtool.interop import load_autoencoder
from smtool.interop.codec import open_codec


def tiny() -> AutoencoderTiny:
    return AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, num_encoder_blocks=(1,) * 4)


def deep() -> AutoencoderDC:
    sides: dict = {}
    for half in ("encoder", "decoder"):
        sides |= {f"{half}_block_types": ("ResBlock",) * 3, f"{half}_block_out_channels": (8, 8, 16)}
        sides |= {f"{half}_layers_per_block": (1,) * 3, f"{half}_qkv_multiscales": ((),) * 3}
    return AutoencoderDC(latent_channels=8, attention_head_dim=8, scaling_factor=0.5, **sides)


@pytest.mark.parametrize("inside", ["", "/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize(("make", "downsample", "channels", "std"), [(tiny, 8, 4, 1.0), (deep, 4, 8, 2.0)])
def test_a_folder_is_run_by_diffusers(make, downsample, channels, std, inside, tmp_path):
    theirs = make().eval()
    theirs.save_pretrained(tmp_path)
    codec = open_codec(f"{tmp_path}{inside}", image_size=32)
    assert (codec.downsample, codec.latent_channels, codec.stats.std.item()) == (downsample, channels, std)
    assert codec.deterministic and codec.can_decode
    assert codec.architecture.startswith(type(theirs).__name__)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        encoded = theirs.encode(x)
        latents = getattr(encoded, "latents", None) if make is tiny else encoded.latent
        assert_close(codec.encode(x).mean, latents)
        assert_close(codec.decode(latents), theirs.decode(latents).sample)


def test_without_diffusers_one_command_is_said(tmp_path, monkeypatch):
    tiny().save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CheckpointError, match=r"diffusers is not installed here.\n  pip install diffusers"):
        open_codec(str(tmp_path))


def test_damaged_weights_are_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="could not be opened as AutoencoderTiny"):
        open_codec(str(tmp_path))


def test_training_on_it_is_refused_by_name(tmp_path):
    tiny().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="AutoencoderTiny, but only AutoencoderKL"):
        load_autoencoder(tmp_path)
