"""Configurations of diffusers' AutoencoderTiny, AutoencoderDC and VQModel, inferred from names and shapes without config.json.

Shapes do not determine activations, attention heads at one scale, and shortcuts around the first and last convolution. These are
set as in the published models (diffusers' defaults; in AutoencoderDC, ReLU with batch norm and SiLU with RMS norm; DC-AE 1.5,
whose stages are all residual with none at full size, has neither of these shortcuts and ends with SiLU, arXiv 2508.00413).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from smtool.checkpoints.foreign.family import numbers
from smtool.checkpoints.foreign.vector_quantized import codebook_prefix, vq_config

Shape = tuple[int, ...]

Layout = Literal["diffusers", "dc-ae", "vq"]
"""Origin of the names: diffusers, DC-AE's authors, or (vq) any known names of a KL autoencoder, with a codebook."""
_MARKS: tuple[tuple[str, Layout, str], ...] = (
    ("AutoencoderTiny", "diffusers", "encoder.layers.0.weight"),
    ("AutoencoderDC", "diffusers", "encoder.down_blocks.1.0.conv1.weight"),
    ("AutoencoderDC", "dc-ae", "encoder.stages.1.op_list.0.main.conv1.conv.weight"),
)

_VERSION_15 = {"encoder_out_shortcut": False, "decoder_in_shortcut": False, "decoder_conv_act_fn": "silu"}


@dataclass(frozen=True)
class Found:
    """A class of diffusers, the layout of its names, and their common prefix in the file."""

    name: str
    layout: Layout
    prefix: str


def find_class(names: Iterable[str]) -> Found | None:
    """The class whose weights have such names, or None."""
    names = tuple(names)
    for kind, layout, mark in _MARKS:
        for name in names:
            if name == mark or name.endswith(f".{mark}"):
                return Found(kind, layout, name.removesuffix(mark))
    prefix = codebook_prefix(names)
    return None if prefix is None else Found("VQModel", "vq", prefix)


def config_of(name: str, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Arguments of the class, from shapes under diffusers' names. Raises KeyError or IndexError if weights are missing."""
    return {"AutoencoderTiny": _tiny, "AutoencoderDC": _dc, "VQModel": vq_config}[name](shapes)


def _tiny(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    encoder, decoder = _tiny_stages(shapes, "encoder"), _tiny_stages(shapes, "decoder")
    return {
        "in_channels": shapes[f"encoder.layers.{encoder[0][0]}.weight"][1],
        "out_channels": shapes[f"decoder.layers.{decoder[-1][0]}.weight"][0],
        "latent_channels": shapes[f"encoder.layers.{encoder[-1][0]}.weight"][0],
        "encoder_block_out_channels": tuple(shapes[f"encoder.layers.{conv}.weight"][0] for conv, _ in encoder[:-1]),
        "decoder_block_out_channels": tuple(shapes[f"decoder.layers.{conv}.weight"][1] for conv, _ in decoder[1:]),
        "num_encoder_blocks": tuple(blocks for _, blocks in encoder[:-1]),
        "num_decoder_blocks": tuple(blocks for _, blocks in decoder[:-1]),
    }


def _tiny_stages(shapes: Mapping[str, Shape], half: str) -> list[tuple[int, int]]:
    """(layer number, number of blocks that follow) of each single convolution, in order."""
    convolutions = numbers(shapes, rf"{half}\.layers\.(\d+)\.weight")
    blocks = numbers(shapes, rf"{half}\.layers\.(\d+)\.conv\.0\.weight")
    ends = [*convolutions[1:], convolutions[-1]]
    return [(start, sum(start < block < end for block in blocks)) for start, end in zip(convolutions, ends, strict=True)]


def _dc(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    encoder, decoder = _dc_half(shapes, "encoder.down_blocks"), _dc_half(shapes, "decoder.up_blocks")
    attended = [shape for name, shape in shapes.items() if name.endswith(".to_qkv_multiscale.0.proj_out.weight")]
    first = "encoder.conv_in.weight" if "encoder.conv_in.weight" in shapes else "encoder.conv_in.conv.weight"
    return {
        "in_channels": shapes[first][1],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "attention_head_dim": attended[0][1] if attended else 32,
        "downsample_block_type": _resampling(shapes, encoder["block_out_channels"]),
        "upsample_block_type": _upsampling(shapes, decoder["block_out_channels"]),
        **{f"encoder_{key}": value for key, value in encoder.items() if key != "norm_types"},
        **{f"decoder_{key}": value for key, value in decoder.items()},
        "decoder_act_fns": tuple("relu" if norm == "batch_norm" else "silu" for norm in decoder["norm_types"]),
        **(_VERSION_15 if set(encoder["block_types"]) == {"ResBlock"} and not encoder["layers_per_block"][0] else {}),
    }


def _dc_half(shapes: Mapping[str, Shape], stages: str) -> dict[str, tuple[Any, ...]]:
    """Settings per stage. A first stage without blocks has no weights; its unused width is set to that of the second."""
    count = 1 + max(numbers(shapes, rf"{re.escape(stages)}\.(\d+)\..*"))
    found = [_dc_stage(shapes, f"{stages}.{stage}") for stage in range(count)]
    found = [stage or {**found[1], "layers_per_block": 0} for stage in found]
    return {key: tuple(stage[key] for stage in found) for key in found[0]}


def _dc_stage(shapes: Mapping[str, Shape], stage: str) -> dict[str, Any]:
    inside = [name.removeprefix(f"{stage}.") for name in shapes if name.startswith(f"{stage}.")]
    residual, attending = numbers(inside, r"(\d+)\.conv1\.weight"), numbers(inside, r"(\d+)\.attn\.to_q\.weight")
    if not (residual or attending):
        return {}
    block = f"{stage}.{(residual or attending)[0]}"
    scales = numbers(inside, rf"{(residual or attending)[0]}\.attn\.to_qkv_multiscale\.(\d+)\.proj_in\.weight")
    normed = any(re.fullmatch(r"\d+\.(attn\.norm_out|norm)\.running_mean", name) for name in inside)
    return {
        "block_types": "ResBlock" if residual else "EfficientViTBlock",
        "block_out_channels": shapes[f"{block}.conv1.weight"][0] if residual else shapes[f"{block}.attn.to_q.weight"][1],
        "layers_per_block": len(residual or attending),
        "qkv_multiscales": tuple(shapes[f"{block}.attn.to_qkv_multiscale.{scale}.proj_in.weight"][-1] for scale in scales),
        "norm_types": "batch_norm" if normed else "rms_norm",
    }


def _resampling(shapes: Mapping[str, Shape], widths: tuple[int, ...]) -> str:
    """Type of downsampling: a convolution before pixel-unshuffle has a quarter of the next stage's channels."""
    last = max(numbers(shapes, rf"encoder\.down_blocks\.{len(widths) - 2}\.(\d+)\.conv\.weight"))
    return "conv" if shapes[f"encoder.down_blocks.{len(widths) - 2}.{last}.conv.weight"][0] == widths[-1] else "pixel_unshuffle"


def _upsampling(shapes: Mapping[str, Shape], widths: tuple[int, ...]) -> str:
    """Type of upsampling: a convolution before pixel-shuffle has four times the stage's channels."""
    stage = len(widths) - 2
    return "interpolate" if shapes[f"decoder.up_blocks.{stage}.0.conv.weight"][0] == widths[stage] else "pixel_shuffle"
