"""Checkpoints of the paper's own trainer: `checkpoint_<step>/model.safetensors`, other key names, symmetric padding.

Source of names and padding: facts section 1.6 (the mapping leaves no key over). The architecture is read off the shapes.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from smtool.errors import CheckpointError
from smtool.interop.assemble import assemble
from smtool.networks.autoencoder import SDVAE, Autoencoder
from smtool.networks.layers import DownsamplePad
from smtool.storage import read_shapes, read_tensors

_RENAMES = (
    (r"^post_encoder_conv\.", "quant_conv."),
    (r"^pre_decoder_conv\.", "post_quant_conv."),
    (r"^encoder\.encoder_blocks\.(\d+)\.blocks\.", r"encoder.down_blocks.\1.resnets."),
    (r"^encoder\.encoder_blocks\.(\d+)\.downsample\.downsample_conv\.", r"encoder.down_blocks.\1.downsamplers.0.conv."),
    (r"^decoder\.decoder_blocks\.(\d+)\.blocks\.", r"decoder.up_blocks.\1.resnets."),
    (r"^decoder\.decoder_blocks\.(\d+)\.upsample\.upsample\.1\.", r"decoder.up_blocks.\1.upsamplers.0.conv."),
    (r"^(encoder|decoder)\.attn_block\.", r"\1.mid_block."),
    (r"^(encoder|decoder)\.out_norm\.", r"\1.conv_norm_out."),
    (r"\.attentions\.0\.groupnorm\.", ".attentions.0.group_norm."),
    (r"\.attentions\.0\.([qkv])_proj\.", r".attentions.0.to_\1."),
    (r"\.attentions\.0\.out_proj\.", ".attentions.0.to_out.0."),
    (r"\.identity_conv\.", ".conv_shortcut."),
)


def is_released(names: Iterable[str]) -> bool:
    return "post_encoder_conv.weight" in names


def read_released(path: Path, device: str = "cpu", *, downsample_pad: DownsamplePad = "symmetric") -> Autoencoder:
    """The autoencoder of a model.safetensors that the paper's trainer saved."""
    shapes = {_renamed(name): shape for name, shape in read_shapes(path).items()}
    try:
        section = _section(shapes, downsample_pad)
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"{path} has key names of the paper's trainer, but is not a whole autoencoder of it.") from error
    return assemble(path, section, {_renamed(name): tensor for name, tensor in read_tensors(path, device).items()})


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _section(shapes: Mapping[str, tuple[int, ...]], downsample_pad: DownsamplePad) -> SDVAE:
    """All released models have 32 norm groups."""
    channels = [
        shape[0]
        for name, shape in sorted(shapes.items())
        if re.fullmatch(r"encoder\.down_blocks\.\d\.resnets\.0\.conv1\.weight", name)
    ]
    blocks = sum(1 for name in shapes if re.fullmatch(r"encoder\.down_blocks\.0\.resnets\.\d+\.conv1\.weight", name))
    return SDVAE(
        downsample=2 ** (len(channels) - 1),
        latent_channels=shapes["post_quant_conv.weight"][0],
        channels=tuple(channels),
        blocks_per_level=blocks,
        downsample_pad=downsample_pad,
    )
