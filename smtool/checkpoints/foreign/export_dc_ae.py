"""Write DC-AE as a folder for diffusers' `AutoencoderDC.from_pretrained`, the inverse of `dc_ae.py`."""

from pathlib import Path
from typing import Any

import torch

from smtool.checkpoints.foreign.dc_ae import DC_AE
from smtool.checkpoints.foreign.diffusers import WEIGHTS
from smtool.checkpoints.foreign.export_diffusers import normalization
from smtool.networks.dc_ae import DCAE, DeepCompressionAutoencoder
from smtool.storage import write_json, write_tensors


def write_dc_ae(folder: Path, autoencoder: DeepCompressionAutoencoder, *, dtype: torch.dtype = torch.float32) -> list[Path]:
    """Write config.json and diffusion_pytorch_model.safetensors; LatentStats become scaling_factor. Returns the written files.

    dtype: of the weights; counters of BatchNorm remain integers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{WEIGHTS}.safetensors", folder / "config.json"]
    weights = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in autoencoder.state_dict().items()
    }
    write_tensors(written[0], weights, {"format": "pt"})
    scale = normalization(autoencoder.stats)
    if scale.get("shift_factor", 0) is None:      # a key that this class does not have
        del scale["shift_factor"]
    write_json(written[1], {**described(autoencoder.config), **scale})
    return written


def described(config: DCAE) -> dict[str, Any]:
    """The config.json of diffusers' class, without the normalization of the latents."""
    levels = range(len(config.channels))
    attention, batch_norm = config.attention or (), config.batch_norm or ()
    kinds = ["EfficientViTBlock" if level in attention else "ResBlock" for level in levels]
    scales = [list(config.attention_scales) if level in attention else [] for level in levels]
    halves: dict[str, Any] = {}
    for half, blocks in (("encoder", config.encoder_blocks), ("decoder", config.decoder_blocks)):
        halves |= {f"{half}_block_types": kinds, f"{half}_block_out_channels": list(config.channels)}
        halves |= {f"{half}_layers_per_block": list(blocks), f"{half}_qkv_multiscales": scales}
    shuffle = config.resampling == "shuffle"
    return {
        "_class_name": DC_AE,
        "in_channels": config.image_channels,
        "latent_channels": config.latent_channels,
        "attention_head_dim": config.head_channels,
        **halves,
        "downsample_block_type": "pixel_unshuffle" if shuffle else "conv",
        "upsample_block_type": "pixel_shuffle" if shuffle else "interpolate",
        "decoder_norm_types": ["batch_norm" if level in batch_norm else "rms_norm" for level in levels],
        "decoder_act_fns": ["relu" if level in batch_norm else "silu" for level in levels],
        "encoder_out_shortcut": config.latent_shortcuts,
        "decoder_in_shortcut": config.latent_shortcuts,
        "decoder_conv_act_fn": config.last_activation,
    }
