"""AutoencoderTiny and AutoencoderDC opened from weights alone give the results of diffusers with the original config."""

import re

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderTiny
from safetensors.torch import save_file
from torch.testing import assert_close

from smtool.errors import CheckpointError
from smtool.tokenizers import open_tokenizer

STAGES = {"block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"), "block_out_channels": (8, 8, 16)}


def deep(encoder: dict, decoder: dict, **config) -> AutoencoderDC:
    """A small model with the three kinds of stages of the published models."""
    halves = {f"encoder_{key}": value for key, value in {**STAGES, **encoder}.items()}
    halves |= {f"decoder_{key}": value for key, value in {**STAGES, **decoder}.items()}
    return AutoencoderDC(**{"latent_channels": 4, "attention_head_dim": 4, **halves, **config}).eval()


def sana_like() -> AutoencoderDC:
    """Like dc-ae-f32c32-sana: blocks in every stage, resampling by convolution and interpolation, RMS norm."""
    sides = {"qkv_multiscales": ((), (), (5,))}
    return deep(
        {"layers_per_block": (2, 1, 1), **sides},
        {"layers_per_block": (1, 2, 2), **sides},
        downsample_block_type="conv",
        upsample_block_type="interpolate",
    )


def imagenet_like() -> AutoencoderDC:
    """Like dc-ae-f32c32-in: no blocks at full size, resampling by pixel shuffle, batch norm with ReLU in the decoder's residual
    stages, attention at one scale with heads of width 32, which shapes do not determine."""
    norms = {"norm_types": ("batch_norm", "batch_norm", "rms_norm"), "act_fns": ("relu", "relu", "silu")}
    sides = {"qkv_multiscales": ((), (), ()), "block_out_channels": (8, 32, 64)}
    halves = {"layers_per_block": (0, 1, 2), **sides}, {"layers_per_block": (0, 2, 1), **sides, **norms}
    return deep(*halves, attention_head_dim=32)


def version_15_like() -> AutoencoderDC:
    """Like dc-ae-1.5: residual blocks only, none at full size, no shortcut beside the latent, SiLU before the last layer."""
    sides = {"block_types": ("ResBlock",) * 3, "layers_per_block": (0, 1, 2), "qkv_multiscales": ((), (), ())}
    without = {"encoder_out_shortcut": False, "decoder_in_shortcut": False, "decoder_conv_act_fn": "silu"}
    return deep(sides, sides, **without)


def tiny() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3,
        decoder_block_out_channels=(8,) * 3,
        num_encoder_blocks=(1, 2, 3),
        num_decoder_blocks=(3, 1, 2),
        latent_channels=16,
    )


def by_authors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the names of DC-AE's release, whose attention has one fused 1x1 convolution."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in (
            (r"(down|up)_blocks\.(\d+)\.(\d+)\.conv\.", r"\1_blocks.\2.\3.main.conv."),
            (r"_blocks\.(\d+)\.(\d+)\.(conv[12])\.", r"_blocks.\1.\2.main.\3.conv."),
            (r"_blocks\.(\d+)\.(\d+)\.norm\.", r"_blocks.\1.\2.main.conv2.norm."),
            (r"main\.conv\.(weight|bias)", r"main.conv.conv.\1"),
            (r"_blocks\.(\d+)\.", r"_blocks.\1.op_list."),
            (r"(down|up)_blocks", "stages"),
            (r"conv_in\.", "project_in.conv."),
            (r"encoder\.conv_out\.", "encoder.project_out.0.conv."),
            (r"decoder\.norm_out\.", "decoder.project_out.0."),
            (r"decoder\.conv_out\.", "decoder.project_out.2.conv."),
        ):
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def residual_only() -> AutoencoderDC:
    sides = {"block_types": ("ResBlock",) * 3, "layers_per_block": (1, 1, 1), "qkv_multiscales": ((), (), ())}
    return deep(sides, sides, downsample_block_type="conv", upsample_block_type="interpolate")


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (tiny, lambda tensors: tensors),
        (sana_like, lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()}),
        (imagenet_like, lambda tensors: tensors),
        (residual_only, by_authors),
        (version_15_like, lambda tensors: tensors),
    ],
)
def test_weights_alone_compute_what_diffusers_computes(make, names, tmp_path):
    theirs = make().eval()
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in names(theirs.state_dict()).items()}, path)
    tokenizer = open_tokenizer(str(path), image_size=32)
    assert (tokenizer.downsample, tokenizer.latent_channels, tokenizer.stats) == (4, theirs.config.latent_channels, None)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = theirs.encode(x)[0]
        assert latents.abs().max() > 1e-3
        assert_close(tokenizer.encode(x).mean, latents)
        assert_close(tokenizer.decode(latents), theirs.decode(latents).sample)


def test_a_pickle_inside_a_wrapper_is_opened_as_well(tmp_path):
    theirs = tiny()
    torch.save({"epoch": 3, "state_dict": theirs.state_dict()}, tmp_path / "tiny.pt")
    tokenizer = open_tokenizer(str(tmp_path / "tiny.pt"), image_size=32)
    assert tokenizer.architecture.startswith("AutoencoderTiny f4, 16 channels")


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_of_the_weights_is_refused(half, tmp_path):
    kept = {name: tensor for name, tensor in sana_like().state_dict().items() if name.startswith(half) or ".1.0.conv1" in name}
    save_file(kept, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match=r"names of AutoencoderDC, but is incomplete|only the encoder of"):
        open_tokenizer(str(tmp_path / "half.safetensors"))


def test_weights_that_do_not_fit_are_named(tmp_path):
    tensors = sana_like().state_dict()
    tensors["encoder.surplus"] = torch.zeros(1)
    save_file(tensors, tmp_path / "more.safetensors")
    with pytest.raises(CheckpointError, match=r"do not fit the architecture[\s\S]*1 unexpected, first encoder\.surplus"):
        open_tokenizer(str(tmp_path / "more.safetensors"))
