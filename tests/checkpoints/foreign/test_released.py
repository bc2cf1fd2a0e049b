"""A checkpoint with the released trainer's key names, made from diffusers weights by the inverse renaming.

Source of the names: released-code.md#keys-of-diffusers.
"""

import re

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from smtool.errors import CheckpointError
from smtool.tokenizers import load_autoencoder

# part of a key of diffusers -> part of the released key
RELEASED = {
    "post_quant_conv": "pre_decoder_conv",
    "^quant_conv": "post_encoder_conv",
    "down_blocks": "encoder_blocks",
    "up_blocks": "decoder_blocks",
    r"(?<=blocks\.\d\.)resnets": "blocks",
    r"downsamplers\.0\.conv": "downsample.downsample_conv",
    r"upsamplers\.0\.conv": "upsample.upsample.1",
    "mid_block": "attn_block",
    "conv_norm_out": "out_norm",
    "group_norm": "groupnorm",
    r"to_out\.0": "out_proj",
    r"to_([qkv])\.": r"\1_proj.",
    "conv_shortcut": "identity_conv",
}


@pytest.fixture
def twin() -> AutoencoderKL:
    model = AutoencoderKL(
        block_out_channels=(32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=2,
        latent_channels=5,
    )
    for block in model.encoder.down_blocks[:-1]:
        block.downsamplers[0].padding = 1
        block.downsamplers[0].conv.padding = (1, 1)
    return model


def released_names(model: AutoencoderKL) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in model.state_dict().items():
        for pattern, replacement in RELEASED.items():
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def test_a_released_checkpoint_computes_what_diffusers_computes_with_symmetric_padding(twin, tmp_path):
    tensors = released_names(twin)
    assert "encoder.encoder_blocks.1.blocks.0.identity_conv.weight" in tensors
    save_file(tensors, tmp_path / "model.safetensors")
    autoencoder = load_autoencoder(f"{tmp_path},norm_groups=32")  # accelerate's checkpoint_<step> folder
    assert autoencoder.config.downsample_pad == "symmetric"
    assert (autoencoder.config.channels, autoencoder.config.blocks_per_level) == ((32, 64, 64), 2)
    # float64, because rounding in float32 differs between processors
    images = torch.randn(1, 3, 16, 24, dtype=torch.float64)
    autoencoder, twin, close = autoencoder.double(), twin.double(), {"rtol": 1e-9, "atol": 1e-11}
    with torch.no_grad():
        expected = twin.encode(images).latent_dist.mean
        assert_close(autoencoder.encode(images).mean, expected, **close)
        assert_close(autoencoder.decode(expected), twin.decode(expected).sample, **close)


def test_a_part_of_a_released_checkpoint_is_refused(twin, tmp_path):
    save_file(released_names(twin), tmp_path / "model.safetensors")
    tensors = load_file(tmp_path / "model.safetensors")
    without_decoder = {name: tensor for name, tensor in tensors.items() if not name.startswith("pre_decoder")}
    save_file(without_decoder, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"2 missing, first post_quant_conv\.bias"):
        load_autoencoder(f"{tmp_path},norm_groups=32")
