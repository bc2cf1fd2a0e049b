"""Checkpoints of the paper's own trainer: `checkpoint_<step>/model.safetensors`, other key names, symmetric padding.

Source of names and padding: facts section 1.6 (the mapping leaves no key over).
"""

import re
from collections.abc import Iterable

SIGNATURE = "encoder.encoder_blocks.0.blocks.0.conv1.weight"

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
    return any(name.endswith(SIGNATURE) for name in names)


def renamed(name: str) -> str:
    """diffusers' name of one of the released trainer's tensors."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
