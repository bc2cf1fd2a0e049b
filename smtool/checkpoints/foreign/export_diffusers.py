"""Write autoencoders as folders for diffusers' `AutoencoderKL.from_pretrained`, the inverse of `diffusers.py`."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from smtool.checkpoints.foreign.diffusers import FLUX2
from smtool.checkpoints.foreign.patch_norm import EPS, patch_norm
from smtool.errors import CheckpointError
from smtool.networks.posterior import LatentStats
from smtool.networks.sd_vae import SDVAE, Autoencoder
from smtool.storage import write_json, write_tensors

SYMMETRIC_NOTE = """\
## Padding

This autoencoder pads its stride-2 convolutions on all sides. diffusers pads right and bottom only and has no key for this, so its
latents would differ without an error. After `vae = AutoencoderKL.from_pretrained(...)`, these lines correct the padding:

    for block in vae.encoder.down_blocks:
        for downsampler in block.downsamplers or ():
            downsampler.padding, downsampler.conv.padding = 1, (1, 1)

`smtool` itself reads the padding from config.json (downsample_pad) and needs no change.
"""
REFLECT_NOTE = """\
## Padding

The convolutions of this autoencoder reflect images at their edges. diffusers pads with zeros and has no key for this, so edges
would differ without an error. After `vae = ...from_pretrained(...)`, these lines correct the padding:

    for module in vae.modules():
        if hasattr(module, "padding_mode") and max(module.padding) > 0:
            module.padding_mode = "reflect"

`smtool` itself reads the padding from config.json (padding) and needs no change.
"""

def write_diffusers(
    folder: Path,
    autoencoder: Autoencoder,
    *,
    unlike_padding: bool = False,
    dtype: torch.dtype = torch.float32,
    batch_norm: Mapping[str, Tensor] = MappingProxyType({}),
) -> list[Path]:
    """Write config.json and diffusion_pytorch_model.safetensors; LatentStats become scaling_factor, shift_factor or latents_*.

    unlike_padding: allow padding that diffusers has no key for (`notes_for_diffusers` has the code that it needs); otherwise this
    is a CheckpointError, because diffusers would compute other latents (released-code.md#keys-of-diffusers). batch_norm: FLUX.2's
    batch norm of 2x2 patches as it is in a file ("bn.running_mean" ...); else it is made from the statistics. Returns the written
    files.
    """
    config = autoencoder.config
    refuse_for_diffusers(config, unlike_padding=unlike_padding)
    flux2 = diffusers_class(autoencoder, batch_norm) == FLUX2
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "diffusion_pytorch_model.safetensors", folder / "config.json"]
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in autoencoder.state_dict().items()}
    if flux2:
        weights |= batch_norm or patch_norm(autoencoder.stats, config.latent_channels)
    write_tensors(written[0], weights, {"format": "pt"})
    write_json(written[1], {**described(autoencoder, flux2=flux2), **({} if flux2 else normalization(autoencoder.stats))})
    return written


def diffusers_class(autoencoder: Autoencoder, batch_norm: Mapping[str, Tensor] = MappingProxyType({})) -> str:
    """AutoencoderKLFlux2 for one with a batch norm, statistics of patches or own widths of the decoder, else AutoencoderKL."""
    of_patches = autoencoder.stats is not None and autoencoder.stats.kind == "patch"
    return FLUX2 if batch_norm or of_patches or autoencoder.config.decoder_channels else "AutoencoderKL"


def described(autoencoder: Autoencoder, *, flux2: bool = False) -> dict[str, Any]:
    """The config.json of diffusers' class for an autoencoder, without the normalization of its latents."""
    config = autoencoder.config
    return {**_config(config), **(_flux2(config) if flux2 or diffusers_class(autoencoder) == FLUX2 else {})}


def refuse_for_diffusers(config: SDVAE, *, unlike_padding: bool) -> None:
    """Raise CheckpointError for a network that diffusers does not have, or, unless allowed, with padding it has no key for."""
    if config.decoder_blocks is not None:
        raise CheckpointError(
            f"The decoder has {config.decoder_blocks} blocks per level, but diffusers always uses {config.blocks_per_level + 1} "
            f"for an encoder with {config.blocks_per_level}.",
            hint="Use --to smtool.",
        )
    if config.latent_norm != "none":
        raise CheckpointError(
            "This autoencoder normalizes its latents over channels (model.latent_norm), which diffusers does not do: it would "
            "compute other latents.",
            hint="Use --to smtool.",
        )
    asked = [("symmetrically", "--symmetric")] if config.downsample_pad == "symmetric" else []
    asked += [("by reflection", "--reflect")] if config.padding == "reflect" else []
    if asked and not unlike_padding:
        how, option = asked[0]
        raise CheckpointError(
            f"This autoencoder pads {how}, for which diffusers has no setting: it would compute other latents.",
            hint=f"To export it anyway, use {option}; the README.md in the folder then has the code that diffusers needs.",
        )


def notes_for_diffusers(config: SDVAE) -> list[str]:
    """Sections of the README.md with the code that diffusers needs for this padding."""
    notes = [SYMMETRIC_NOTE] if config.downsample_pad == "symmetric" else []
    return [note.strip() for note in [*notes, *([REFLECT_NOTE] if config.padding == "reflect" else [])]]


def _flux2(config: SDVAE) -> dict[str, Any]:
    """The keys in which AutoencoderKLFlux2 differs: it has no scaling_factor."""
    own = {"decoder_block_out_channels": list(config.decoder_channels)} if config.decoder_channels else {}
    return {"_class_name": FLUX2, "batch_norm_eps": EPS, "patch_size": [2, 2], **own}


def _config(config: SDVAE) -> dict[str, Any]:
    """The keys of AutoencoderKL, and those which only smtool reads (downsample_pad, padding) if they differ from diffusers'."""
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
        "mid_block_add_attention": config.mid_attention,
        "use_quant_conv": config.quant_convs,
        "use_post_quant_conv": config.quant_convs,
        "force_upcast": True,
        **({"downsample_pad": "symmetric"} if config.downsample_pad == "symmetric" else {}),
        **({"padding": "reflect"} if config.padding == "reflect" else {}),
    }


def normalization(stats: LatentStats | None) -> dict[str, Any]:
    """(z - shift) * scale for scalar statistics, (z - latents_mean) / latents_std per channel; a null scale if unknown.

    Statistics of 2x2 patches have no keys: they are FLUX.2's batch norm, beside the weights.
    """
    if stats is None:
        return {"scaling_factor": None}
    if stats.kind == "patch":
        return {}
    mean, std = ([_shortened(value) for value in values.tolist()] for values in (stats.mean, stats.std))
    if stats.kind == "channel":
        return {"scaling_factor": 1.0, "latents_mean": mean, "latents_std": std}
    return {"scaling_factor": _shortened(1.0 / stats.std.item()), "shift_factor": mean[0] or None}


def _shortened(value: float) -> float:
    """The number with the 7 digits that float32 has: 0.13025, not 0.13025000038817525."""
    return float(f"{value:.7g}")
