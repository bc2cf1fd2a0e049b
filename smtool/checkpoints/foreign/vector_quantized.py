"""Vector-quantized autoencoders, run by diffusers, in the format of LDM (VQModel), taming-transformers (VQGAN) or diffusers.

Latents are the encoder's output before quantization, as in LDM's diffusion models; decoding begins with quantization.
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
"""Names of the codebook's entries, and of further statistics of the codebook that trainers store."""

Shape = tuple[int, ...]


def codebook_prefix(names: Iterable[str]) -> str | None:
    """Prefix of the names of such an autoencoder; None if there is none, or if it quantizes in another way."""
    names = tuple(names)
    for prefix in (name.removesuffix(_CODEBOOK) for name in names if name == _CODEBOOK or name.endswith(f".{_CODEBOOK}")):
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        others = [name for name in inside if name.startswith("quantize.") and not name.startswith(_BESIDE)]
        if family_of(inside) in (LDM, DIFFUSERS) and not others:
            return prefix
    return None


def vq_tensors(file: TensorFile, prefix: str) -> dict[str, Tensor]:
    """The weights, or their averages (EMA) if the file has them, under diffusers' names."""
    inside = [name.removeprefix(prefix) for name in file.shapes if name.startswith(prefix)]
    family = family_of(inside)
    assert family is not None, "checked by the caller"
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
