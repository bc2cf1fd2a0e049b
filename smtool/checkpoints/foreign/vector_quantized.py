"""Vector-quantized autoencoders in LDM's layout (LDM's VQModel, taming-transformers' VQGAN) or diffusers', for diffusers to run.

Their latents are what LDM trains its diffusion models on: the encoder's, before quantization, which opens the decoder.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from smtool.checkpoints.foreign.detect import attended_levels, blocks_per_level, level_widths
from smtool.checkpoints.foreign.diffusers import DIFFUSERS
from smtool.checkpoints.foreign.key_names import family_of
from smtool.checkpoints.foreign.ldm import LDM, averages
from smtool.checkpoints.tensor_file import TensorFile

_CODEBOOK = "quantize.embedding.weight"
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_BESIDE = ("quantize.embedding.", "quantize.used")
"""What trainers keep of the codebook beside its entries: how often each was chosen."""

Shape = tuple[int, ...]


def codebook_prefix(names: Iterable[str]) -> str | None:
    """What stands before the names of such an autoencoder; None where there is none, or one that quantizes otherwise."""
    names = tuple(names)
    for prefix in (name.removesuffix(_CODEBOOK) for name in names if name == _CODEBOOK or name.endswith(f".{_CODEBOOK}")):
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        others = [name for name in inside if name.startswith("quantize.") and not name.startswith(_BESIDE)]
        if family_of(inside) in (LDM, DIFFUSERS) and not others:
            return prefix
    return None


def vq_tensors(file: TensorFile, prefix: str) -> dict[str, Tensor]:
    """Its weights, or their averages where the file has them, under diffusers' names."""
    inside = [name.removeprefix(prefix) for name in file.shapes if name.startswith(prefix)]
    family = family_of(inside)
    assert family is not None, "asked before"
    renamed = family.our_names(name for name in inside if name.startswith(_PARTS)) | {_CODEBOOK: _CODEBOOK}
    averaged = averages(file.shapes, prefix)
    tensors = file.read({averaged.get(f"{prefix}{old}", f"{prefix}{old}"): new for old, new in renamed.items()})
    return {name: value.flatten(1) if value.ndim == 4 and ".attentions." in name else value for name, value in tensors.items()}


def vq_config(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Arguments of diffusers' VQModel."""
    widths, attended = level_widths(shapes), attended_levels(shapes)
    down = [f"{'Attn' if level in attended else ''}DownEncoderBlock2D" for level in range(len(widths))]
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "block_out_channels": widths,
        "down_block_types": tuple(down),
        "up_block_types": tuple(name.replace("DownEncoder", "UpDecoder") for name in reversed(down)),
        "layers_per_block": blocks_per_level(shapes),
        "latent_channels": shapes["encoder.conv_out.weight"][0],
        "num_vq_embeddings": shapes[_CODEBOOK][0],
        "vq_embed_dim": shapes[_CODEBOOK][1],
    }
