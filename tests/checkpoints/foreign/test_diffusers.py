"""Folders saved by diffusers can be opened and give the results of diffusers."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from smtool.errors import CheckpointError
from smtool.tokenizers import load_autoencoder

IMAGES = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def tiny(**config) -> AutoencoderKL:
    levels = config.pop("levels", 3)
    return AutoencoderKL(
        **{
            "block_out_channels": (8, 8, 16, 16)[:levels],
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "norm_num_groups": 4,
            "latent_channels": 3,
            **config,
        }
    )


def assert_same_function(autoencoder, theirs: AutoencoderKL) -> None:
    """Compared in float64, because rounding in float32 differs between processors."""
    autoencoder, theirs, close = autoencoder.double(), theirs.double(), {"rtol": 1e-9, "atol": 1e-11}
    with torch.no_grad():
        moments = theirs.encode(IMAGES.double()).latent_dist
        posterior = autoencoder.encode(IMAGES.double())
        assert_close(posterior.mean, moments.mean, **close)
        assert_close(posterior.logvar, moments.logvar, **close)
        assert_close(autoencoder.decode(moments.mean), theirs.decode(moments.mean).sample, **close)


@pytest.mark.parametrize(
    "config",
    [{}, {"layers_per_block": 2, "levels": 4}, {"use_quant_conv": False, "use_post_quant_conv": False}, {"levels": 1}],
)
def test_a_saved_folder_computes_what_diffusers_computes(config, tmp_path):
    theirs = tiny(**config)
    theirs.save_pretrained(tmp_path)
    assert_same_function(load_autoencoder(tmp_path), theirs)


def test_a_pipeline_folder_is_opened_at_its_vae(tmp_path):
    theirs = tiny()
    theirs.save_pretrained(tmp_path / "vae")
    assert_same_function(load_autoencoder(str(tmp_path)), theirs)


def test_a_folder_of_pickled_tensors_is_opened_without_running_anything(tmp_path):
    theirs = tiny()
    theirs.save_pretrained(tmp_path, safe_serialization=False)
    assert not (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    assert_same_function(load_autoencoder(tmp_path), theirs)


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("old_names", [False, True])
def test_old_names_of_attention_are_read(old_names, convolutions, tmp_path):
    """Projections were named query, key, value, proj_attn in old versions, and were 1x1 convolutions in LDM."""
    theirs = tiny()
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {}
    for name, tensor in load_file(path).items():
        if "attentions" in name and convolutions and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        if "attentions" in name and old_names:
            for new, former in OLD_NAMES.items():
                name = name.replace(f".{new}.", f".{former}.")
        old[name] = tensor
    save_file({name: tensor.contiguous() for name, tensor in old.items()}, path)
    assert_same_function(load_autoencoder(tmp_path), theirs)


def test_half_precision_weights_become_float32(tmp_path):
    tiny().half().save_pretrained(tmp_path, variant="fp16")
    autoencoder = load_autoencoder(tmp_path)
    assert {parameter.dtype for parameter in autoencoder.parameters()} == {torch.float32}
    assert torch.isfinite(autoencoder.encode(IMAGES).mean).all()


def test_published_scale_and_shift_normalize_as_diffusers_pipelines_do(tmp_path):
    tiny(scaling_factor=0.25, shift_factor=0.5).save_pretrained(tmp_path)
    stats = load_autoencoder(tmp_path).stats
    assert (stats.kind, stats.count, stats.data) == ("scalar", 0, "published")
    latents = torch.randn(2, 3, 4, 4)
    assert_close(stats.normalize(latents), (latents - 0.5) * 0.25)


def test_published_channel_statistics_normalize_as_diffusers_pipelines_do(tmp_path):
    mean, std = [0.5, 0.0, -0.5], [1.0, 2.0, 4.0]
    tiny(scaling_factor=0.5, latents_mean=mean, latents_std=std).save_pretrained(tmp_path)
    latents = torch.randn(2, 3, 4, 4)
    expected = (latents - torch.tensor(mean).view(1, 3, 1, 1)) * 0.5 / torch.tensor(std).view(1, 3, 1, 1)
    assert_close(load_autoencoder(tmp_path).stats.normalize(latents), expected)


def test_flux2_is_the_same_network_whose_batch_norm_is_left_out(tmp_path):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    theirs = AutoencoderKLFlux2(block_out_channels=(8, 16), norm_num_groups=4, latent_channels=3, **blocks)
    theirs.save_pretrained(tmp_path)
    autoencoder = load_autoencoder(tmp_path)
    assert_same_function(autoencoder, theirs)
    assert autoencoder.stats is None
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "decoder_block_out_channels": [4, 8]}))
    with pytest.raises(CheckpointError, match=r"decoder_block_out_channels is \[4, 8\], but must be None"):
        load_autoencoder(tmp_path)


def test_padding_can_be_overridden_and_is_asymmetric_otherwise(tmp_path):
    tiny().save_pretrained(tmp_path)
    assert load_autoencoder(tmp_path).config.downsample_pad == "asymmetric"
    assert load_autoencoder(tmp_path, downsample_pad="symmetric").config.downsample_pad == "symmetric"
    with pytest.raises(ValueError, match="downsample_pad"):
        load_autoencoder(tmp_path, downsample_pad="reflect")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "AutoencoderTiny of diffusers, but only AutoencoderKL"),
        ({"act_fn": "relu", "mid_block_add_attention": False}, "act_fn is 'relu'.*\n.*mid_block_add_attention is False"),
        ({"down_block_types": ["DownBlock2D"] * 3}, r"it has DownBlock2D, .*but only \(Attn\)DownEncoderBlock2D"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, r"attention at levels \(0, 1, 2\), the decoder at \(\)"),
        ({"use_quant_conv": False}, "differ"),
        ({"norm_num_groups": 3}, "not a positive multiple"),
        ({"latent_channels": 5}, "the weights do not fit"),
    ],
)
def test_another_network_is_refused_with_what_differs(change, message, tmp_path):
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_damaged_config_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_autoencoder(tmp_path)


def test_a_folder_without_weights_or_with_damaged_ones_is_refused(tmp_path):
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.rename(tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="not a readable file of plain tensors"):
        load_autoencoder(tmp_path)
    (tmp_path / "diffusion_pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"no diffusion_pytorch_model\.safetensors"):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"block_out_channels": 255},
        {"block_out_channels": None},
        {"up_block_types": -1.5},
        {"up_block_types": [["UpDecoderBlock2D"]] * 3},
        {"down_block_types": {"x": 1}},
        {"scaling_factor": "0.18"},
        {"scaling_factor": 0},
        {"latents_mean": 1.0, "latents_std": 1.0},
        {"_class_name": ["AutoencoderKL"]},
        {"layers_per_block": 1000},
        {"norm_num_groups": "x"},
        {"act_fn": "x" * 5000},
    ],
    ids=str,
)
def test_values_of_another_type_in_the_config_are_refused_in_a_short_sentence(change, tmp_path):
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError) as found:
        load_autoencoder(tmp_path)
    assert len(str(found.value)) < 1000
