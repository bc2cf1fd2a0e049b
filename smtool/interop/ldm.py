"""Autoencoders in the format of latent-diffusion (LDM) and its descendants: VA-VAE, EQ-VAE, FLUX, whole Stable Diffusion files.

The names are CompVis's; the decoder counts its levels from full size down, so `decoder.up.0` is diffusers' last up block.
Shift and scale of a family are those its pipelines use (diffusers' pipeline configurations); a lone VAE does not tell its family.
"""

import re
from collections.abc import Iterable

import torch

from smtool.networks.posterior import LatentStats

SIGNATURE = "encoder.down.0.block.0.conv1.weight"

_RENAMES = (
    (r"\.block\.(\d+)\.", r".resnets.\1."),
    (r"\.attn\.(\d+)\.", r".attentions.\1."),
    (r"\.(down|up)sample\.conv\.", r".\1samplers.0.conv."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"(\.attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(\.attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(\.attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
    (r"^encoder\.down\.", "encoder.down_blocks."),
)

# (shift, scale) by a name that only whole checkpoints of that family have.
_FAMILIES = (
    ("model.diffusion_model.joint_blocks.", (0.0609, 1.5305)),  # Stable Diffusion 3
    ("model.diffusion_model.double_blocks.", (0.1159, 0.3611)),  # FLUX.1
    ("conditioner.embedders.", (0.0, 0.13025)),  # SDXL
    ("cond_stage_model.", (0.0, 0.18215)),  # Stable Diffusion 1 and 2
)


def renamed(name: str, levels: int) -> str:
    """diffusers' name of one of LDM's tensors, of an autoencoder with so many levels."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"^decoder\.up\.(\d+)\.", lambda level: f"decoder.up_blocks.{levels - 1 - int(level[1])}.", name)


def count_levels(names: Iterable[str]) -> int:
    return len({level[1] for name in names if (level := re.match(r"encoder\.down\.(\d+)\.block\.", name))})


def family_stats(names: Iterable[str]) -> LatentStats | None:
    """The published normalization of the diffusion model that lies in the same file; None for an autoencoder alone."""
    everything = tuple(names)
    for sign, (shift, scale) in _FAMILIES:
        if any(name.startswith(sign) for name in everything):
            return LatentStats("scalar", torch.tensor([shift]), torch.tensor([1.0 / scale]), count=0, data="published")
    return None
