"""Our autoencoders as folders that diffusers' `AutoencoderKL.from_pretrained` opens: the way back of `diffusers.py`."""

from pathlib import Path
from typing import Any

import torch

from smtool.errors import CheckpointError
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE, Autoencoder
from smtool.storage import write_json, write_tensors, write_text

SYMMETRIC_NOTE = """\
This autoencoder pads its stride-2 convolutions on all sides. diffusers pads right and bottom only, has no key for this, and would
encode something else without a word. After `vae = AutoencoderKL.from_pretrained(...)`, these lines make it the same function:

    for block in vae.encoder.down_blocks:
        for downsampler in block.downsamplers or ():
            downsampler.padding, downsampler.conv.padding = 1, (1, 1)

`smtool` itself reads the padding from config.json (downsample_pad) and needs nothing.
"""


def write_diffusers(
    folder: Path, autoencoder: Autoencoder, *, symmetric: bool = False, dtype: torch.dtype = torch.float32
) -> list[Path]:
    """Write config.json and diffusion_pytorch_model.safetensors; LatentStats become scaling_factor, shift_factor or latents_*.

    symmetric: write an autoencoder with symmetric padding too, with README.md saying what diffusers must be told; else it is
    refused, since diffusers would open it without an error and encode something else (facts section 1.6).
    """
    config = autoencoder.config
    if config.downsample_pad == "symmetric" and not symmetric:
        raise CheckpointError(
            "This autoencoder pads symmetrically, which diffusers cannot state: it would open it and encode something else.",
            hint="Export it all the same with --symmetric; README.md then holds the lines that diffusers needs.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "diffusion_pytorch_model.safetensors", folder / "config.json"]
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in autoencoder.state_dict().items()}
    write_tensors(written[0], weights, {"format": "pt"})
    write_json(written[1], {**_config(config), **_normalization(autoencoder.stats)})
    if config.downsample_pad == "symmetric":
        written.append(folder / "README.md")
        write_text(written[-1], SYMMETRIC_NOTE)
    return written


def _config(config: SDVAE) -> dict[str, Any]:
    """The keys of AutoencoderKL; downsample_pad, which only we read, where it is not what diffusers does."""
    levels = range(len(config.channels))
    down = [f"{'Attn' if level in config.attention else ''}DownEncoderBlock2D" for level in levels]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
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


def _normalization(stats: LatentStats | None) -> dict[str, Any]:
    """(z - shift) * scale for one mean and std, (z - latents_mean) / latents_std per channel; null: nobody measured them."""
    if stats is None:
        return {"scaling_factor": None}
    if stats.kind == "channel":
        return {"scaling_factor": 1.0, "latents_mean": stats.mean.tolist(), "latents_std": stats.std.tolist()}
    return {"scaling_factor": 1.0 / stats.std.item(), "shift_factor": stats.mean.item() or None}
