"""Write autoencoders as folders for diffusers' `AutoencoderKL.from_pretrained`, the inverse of `diffusers.py`."""

from pathlib import Path
from typing import Any

import torch

from smtool.errors import CheckpointError
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE, Autoencoder
from smtool.storage import write_json, write_tensors, write_text

SYMMETRIC_NOTE = """\
This autoencoder pads its stride-2 convolutions on all sides. diffusers pads right and bottom only and has no key for this, so its
latents would differ without an error. After `vae = AutoencoderKL.from_pretrained(...)`, these lines correct the padding:

    for block in vae.encoder.down_blocks:
        for downsampler in block.downsamplers or ():
            downsampler.padding, downsampler.conv.padding = 1, (1, 1)

`smtool` itself reads the padding from config.json (downsample_pad) and needs no change.
"""


def write_diffusers(
    folder: Path, autoencoder: Autoencoder, *, symmetric: bool = False, dtype: torch.dtype = torch.float32
) -> list[Path]:
    """Write config.json and diffusion_pytorch_model.safetensors; LatentStats become scaling_factor, shift_factor or latents_*.

    symmetric: allow an autoencoder with symmetric padding and write a README.md with the code that diffusers needs; otherwise
    this is a CheckpointError, because diffusers would compute other latents (released-code.md#keys-of-diffusers).
    Returns the written files.
    """
    config = autoencoder.config
    if config.downsample_pad == "symmetric" and not symmetric:
        raise CheckpointError(
            "This autoencoder pads symmetrically, for which diffusers has no setting: it would compute other latents.",
            hint="To export it anyway, use --symmetric; the README.md in the folder then has the code that diffusers needs.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "diffusion_pytorch_model.safetensors", folder / "config.json"]
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in autoencoder.state_dict().items()}
    write_tensors(written[0], weights, {"format": "pt"})
    write_json(written[1], {**_config(config), **normalization(autoencoder.stats)})
    if config.downsample_pad == "symmetric":
        written.append(folder / "README.md")
        write_text(written[-1], SYMMETRIC_NOTE)
    return written


def _config(config: SDVAE) -> dict[str, Any]:
    """The keys of AutoencoderKL, and downsample_pad, which only smtool reads, if it differs from diffusers'."""
    levels = range(len(config.channels))
    down = [f"{'Attn' if level in config.attention else ''}DownEncoderBlock2D" for level in levels]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": config.image_channels,
        "out_channels": config.image_channels,
        "act_fn": "silu",
        "block_out_channels": list(config.channels),
        "down_block_types": down,
        "up_block_types": [name.replace("DownEncoder", "UpDecoder") for name in reversed(down)],
        "layers_per_block": config.blocks_per_level,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.norm_groups,
        "mid_block_add_attention": True,
        "use_quant_conv": config.quant_convs,
        "use_post_quant_conv": config.quant_convs,
        "force_upcast": True,
        **({"downsample_pad": "symmetric"} if config.downsample_pad == "symmetric" else {}),
    }


def normalization(stats: LatentStats | None) -> dict[str, Any]:
    """(z - shift) * scale for scalar statistics, (z - latents_mean) / latents_std per channel; a null scale if unknown."""
    if stats is None:
        return {"scaling_factor": None}
    if stats.kind == "channel":
        return {"scaling_factor": 1.0, "latents_mean": stats.mean.tolist(), "latents_std": stats.std.tolist()}
    return {"scaling_factor": 1.0 / stats.std.item(), "shift_factor": stats.mean.item() or None}
