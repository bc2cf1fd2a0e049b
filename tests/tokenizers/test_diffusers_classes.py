"""Autoencoders run by diffusers: the tokenizer gives the results of diffusers, with the published scale."""

import json
import sys
from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    AutoencoderTiny,
)
from safetensors.torch import save_file
from torch.testing import assert_close

from smtool.errors import CheckpointError
from smtool.tokenizers import load_autoencoder, open_tokenizer


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
    tokenizer = open_tokenizer(f"{tmp_path}{inside}", image_size=32)
    assert (tokenizer.downsample, tokenizer.latent_channels, tokenizer.stats.std.item()) == (downsample, channels, std)
    assert tokenizer.deterministic and tokenizer.can_decode
    assert tokenizer.architecture.startswith(type(theirs).__name__)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        encoded = theirs.encode(x)
        latents = getattr(encoded, "latents", None) if make is tiny else encoded.latent
        assert_close(tokenizer.encode(x).mean, latents)
        assert_close(tokenizer.decode(latents), theirs.decode(latents).sample)


def test_the_named_file_is_opened(tmp_path):
    """As in TAESD's repository, the folder contains other weights than those that config.json describes."""
    theirs, other = tiny().eval(), tiny().eval()
    theirs.save_pretrained(tmp_path)
    theirs.half().save_pretrained(tmp_path, variant="fp16")
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        half = open_tokenizer(str(tmp_path / "diffusion_pytorch_model.fp16.safetensors"), image_size=32)
        assert_close(half.encode(x).mean, theirs.float().encode(x).latents)
        assert_close(open_tokenizer(str(tmp_path / "other.safetensors"), image_size=32).encode(x).mean, other.encode(x).latents)


def test_an_autoencoder_of_videos_gets_images_as_one_frame(tmp_path):
    """Qwen-Image's autoencoder (Wan's is similar), with statistics per channel from its config."""
    mean, std = [0.5, 0.0, -0.5, 1.0], [1.0, 2.0, 4.0, 0.5]
    sizes = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 2], "num_res_blocks": 1, "temperal_downsample": [False, True]}
    theirs = AutoencoderKLQwenImage(**sizes, latents_mean=mean, latents_std=std).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer = open_tokenizer(str(tmp_path), image_size=32)
    assert tokenizer.architecture == "AutoencoderKLQwenImage f4, 4 channels"
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        gaussian = theirs.encode(x[:, :, None]).latent_dist
        posterior = tokenizer.encode(x)
        assert_close(posterior.mean, gaussian.mean[:, :, 0])
        assert_close(posterior.logvar, gaussian.logvar[:, :, 0])
        assert_close(tokenizer.decode(posterior.mean), theirs.decode(gaussian.mean).sample[:, :, 0])
    expected = (posterior.mean - torch.tensor(mean).view(4, 1, 1)) / torch.tensor(std).view(4, 1, 1)
    assert_close(tokenizer.stats.normalize(posterior.mean), expected)


WAN = {"base_dim": 8, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
FOUR = {"block_out_channels": (8,) * 4, "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4}
FIVE = {"block_out_channels": (8, 8, 16, 16, 16), "latent_channels": 4, "layers_per_block": 1}
VIDEO = {
    "Wan 2.1": (AutoencoderKLWan, {**WAN, "z_dim": 4, "latents_mean": [0.5] * 4, "latents_std": [2.0] * 4}, 8, (0.5, 2.0)),
    "Wan 2.2": (
        AutoencoderKLWan,
        {**WAN, "decoder_base_dim": 12, "z_dim": 6, "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12,
         "scale_factor_spatial": 16, "latents_mean": [0.0] * 6, "latents_std": [0.5] * 6},
        16, (0.0, 0.5),
    ),
    "CogVideoX": (AutoencoderKLCogVideoX, {**FOUR, "scaling_factor": 0.5}, 8, (0.0, 2.0)),
    "HunyuanVideo": (AutoencoderKLHunyuanVideo, {**FOUR, "scaling_factor": 0.25}, 8, (0.0, 4.0)),
    "HunyuanVideo 1.5": (AutoencoderKLHunyuanVideo15, {**FIVE, "scaling_factor": 2.0}, 16, (0.0, 0.5)),
}


@pytest.mark.parametrize("name", VIDEO)
def test_video_autoencoders_get_images_as_one_frame(name, tmp_path):
    """Channels, factor and normalization, and the same numbers as one video after the other."""
    kind, sizes, downsample, (mean, std) = VIDEO[name]
    theirs = kind(**sizes).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer = open_tokenizer(str(tmp_path), image_size=64)
    assert (tokenizer.downsample, tokenizer.image_channels) == (downsample, 3)
    assert tokenizer.architecture.startswith(kind.__name__)
    assert (tokenizer.stats.mean[0].item(), tokenizer.stats.std[0].item()) == (mean, std)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        posterior = tokenizer.encode(x)
        decoded = tokenizer.decode(posterior.mean)
        for i in range(2):
            gaussian = theirs.encode(x[i : i + 1, :, None]).latent_dist
            assert_close(posterior.mean[i : i + 1], gaussian.mean[:, :, 0], rtol=1e-4, atol=1e-5)
            assert_close(decoded[i : i + 1], theirs.decode(gaussian.mean).sample[:, :, 0], rtol=1e-3, atol=1e-4)


class UnitRange(torch.nn.Module):
    """A substitute for RAE, whose encoders need another library: images in [0, 1], latents normalized internally."""

    def __init__(self):
        super().__init__()
        self.seen = []

    @classmethod
    def from_pretrained(cls, folder, **options):
        return cls()

    def encode(self, x):
        self.seen.append((x.min().item(), x.max().item()))
        return SimpleNamespace(latent=torch.nn.functional.avg_pool2d(x, 4))

    def decode(self, z):
        return SimpleNamespace(sample=torch.nn.functional.interpolate(z, scale_factor=4.0))


def test_an_autoencoder_of_images_in_0_1_gets_images_in_this_range(tmp_path, monkeypatch):
    UnitRange.__name__ = "AutoencoderRAE"
    monkeypatch.setattr(diffusers, "AutoencoderRAE", UnitRange, raising=False)
    """RAE with an encoder that smtool does not know, which diffusers runs."""
    config = {"_class_name": "AutoencoderRAE", "encoder_hidden_size": 2, "latents_mean": [1.0], "latents_std": [2.0]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "diffusion_pytorch_model.safetensors").touch()
    tokenizer = open_tokenizer(str(tmp_path), image_size=32)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    means = x.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5))
    assert_close(tokenizer.decode(tokenizer.encode(x).mean), means.repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert all(0 <= low <= high <= 1 for low, high in tokenizer.network.network.seen)
    assert tokenizer.stats is None


def test_a_class_that_this_diffusers_does_not_have_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderOfTomorrow"}))
    with pytest.raises(CheckpointError, match=r"OfTomorrow, which diffusers [\d.]+ does not have.\n  pip install --upgrade"):
        open_tokenizer(str(tmp_path))


def test_without_diffusers_the_error_names_the_command_to_install_it(tmp_path, monkeypatch):
    tiny().save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CheckpointError, match=r"diffusers is not installed here.\n  pip install diffusers"):
        open_tokenizer(str(tmp_path))


def test_damaged_weights_are_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="could not be opened as AutoencoderTiny"):
        open_tokenizer(str(tmp_path))


def test_training_on_it_is_refused_by_name(tmp_path):
    tiny().save_pretrained(tmp_path)
    words = r"AutoencoderTiny of diffusers, but only AutoencoderKL[\s\S]*Commands that measure, encode and sample"
    with pytest.raises(CheckpointError, match=words):
        load_autoencoder(tmp_path)
