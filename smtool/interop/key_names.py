"""Names of one network's weights in three families of files, and ours, which are diffusers' of today.

Sources: facts section 1.6 for the paper's own trainer; for LDM the layout of CompVis' autoencoder, in which decoder levels are
numbered by resolution, so that the last one runs first, with FLUX.2's 1x1 convolutions inside of encoder and decoder; for
diffusers before 0.17 the projections of attention.
"""

import re
from collections.abc import Iterable
from typing import Literal

Family = Literal["diffusers", "LDM", "released"]
MARKS: dict[Family, str] = {
    "diffusers": "encoder.down_blocks.0.resnets.0.conv1.weight",
    "LDM": "encoder.down.0.block.0.conv1.weight",
    "released": "encoder.encoder_blocks.0.blocks.0.conv1.weight",
}
"""A name that only this family has."""

_RENAMES: dict[Family, tuple[tuple[str, str], ...]] = {
    "diffusers": (
        (r"(\.attentions\.\d+)\.query\.", r"\1.to_q."),
        (r"(\.attentions\.\d+)\.key\.", r"\1.to_k."),
        (r"(\.attentions\.\d+)\.value\.", r"\1.to_v."),
        (r"(\.attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
    ),
    "LDM": (
        (r"^encoder\.quant_conv\.", "quant_conv."),
        (r"^decoder\.post_quant_conv\.", "post_quant_conv."),
        (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
        (r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1."),
        (r"^decoder\.up\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
        (r"^decoder\.up\.(\d+)\.", r"decoder.up_blocks.\1."),
        (r"(_blocks\.\d+)\.block\.", r"\1.resnets."),
        (r"(_blocks\.\d+)\.attn\.", r"\1.attentions."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"(\.attentions\.\d+)\.norm\.", r"\1.group_norm."),
        (r"(\.attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
        (r"(\.attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.norm_out\.", ".conv_norm_out."),
    ),
    "released": (
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
    ),
}


def numbers(names: Iterable[str], pattern: str) -> list[int]:
    """What the group of `pattern` stands for in the names that match it, each once, in order."""
    return sorted({int(found[1]) for name in names if (found := re.fullmatch(pattern, name))})


def family_of(names: Iterable[str]) -> Family | None:
    """The family whose mark is among these names, which begin with "encoder.", "decoder." and so on."""
    known = set(names)
    return next((family for family, mark in MARKS.items() if mark in known), None)


def our_names(names: Iterable[str], family: Family) -> dict[str, str]:
    """Name in a file of this family -> our name."""
    renamed = {name: _renamed(name, family) for name in names}
    return _levels_reversed(renamed) if family == "LDM" else renamed


def averages(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Name of a weight behind `prefix` -> name of its average, where LDM's trainer keeps one beside it.

    The average is called model_ema.NAME, without the dots of NAME. A diffusion model encodes by its first stage's own weights.
    """
    if prefix.endswith("first_stage_model."):
        return {}
    names = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    beside = {name: f"model_ema.{name.replace('.', '')}" for name in names}
    return {f"{prefix}{name}": f"{prefix}{average}" for name, average in beside.items() if average in names}


def _renamed(name: str, family: Family) -> str:
    for pattern, replacement in _RENAMES[family]:
        name = re.sub(pattern, replacement, name)
    return name


def _levels_reversed(renamed: dict[str, str]) -> dict[str, str]:
    """LDM's decoder.up.0 is at full resolution and runs last; our up_blocks.0 runs first."""
    level = re.compile(r"(?<=^decoder\.up_blocks\.)\d+")
    last = max((int(found[0]) for name in renamed.values() if (found := level.search(name))), default=0)
    return {stored: level.sub(lambda found: str(last - int(found[0])), name) for stored, name in renamed.items()}
