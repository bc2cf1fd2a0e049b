"""Files of SiT, and of REPA, which is the same network with additional projectors (released-code.md#sizes-of-sit).

SiT's time runs from noise to data; its weights, whose last layer has twice the channels, are converted exactly to smtool's
convention. Files of DiT have the same names and shapes as SiT's but predict noise: they are not detected, and give no images.
"""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from smtool.checkpoints.transformers.published import PublishedTransformer, count, sized, square_side
from smtool.networks.sit import SiT
from smtool.networks.transformer import MAX_PERIOD

NAME = "SiT"
FIRST_LAYER = "x_embedder.proj.weight"
MARKS = (FIRST_LAYER,)


def family(tensors: Mapping[str, Tensor]) -> str:
    _, channels, patch, _ = tensors[FIRST_LAYER].shape
    doubled = len(tensors["final_layer.linear.weight"]) == 2 * channels * patch**2
    return "SiT" if doubled else "REPA"


def published(tensors: dict[str, Tensor], heads: int | None) -> PublishedTransformer:
    """Convert the tensors. The last class embedding is the null class. Raises KeyError or IndexError if tensors are missing."""
    whose = family(tensors)
    tensors = _in_one_row(tensors)
    width, channels, patch, _ = tensors[FIRST_LAYER].shape
    table = tensors.get("y_embedder.embedding_table.weight")
    config = sized(SiT, count(tensors, "blocks"), width, patch, heads)
    side = square_side(tensors["pos_embed"].shape[1]) * patch
    if whose == "SiT":
        tensors = time_reversed(_without_variance(tensors, channels, patch))
    num_classes = 0 if table is None else len(table) - 1
    return PublishedTransformer(whose, config, (channels, side, side), num_classes, "flow", tensors)


def _in_one_row(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename decoder_blocks, the blocks after the aligned one in REPA's first files, to blocks."""
    first = count(tensors, "blocks")
    return {
        re.sub(r"^decoder_blocks\.(\d+)\.", lambda match: f"blocks.{first + int(match[1])}.", name): value
        for name, value in tensors.items()
    }


def _without_variance(tensors: dict[str, Tensor], channels: int, patch: int) -> dict[str, Tensor]:
    """Remove the half of the last layer's output channels that SiT does not use."""
    kept = {
        name: tensors[name].unflatten(0, (patch, patch, 2 * channels))[:, :, :channels].flatten(0, 2)
        for name in ("final_layer.linear.weight", "final_layer.linear.bias")
    }
    return {**tensors, **kept}


def time_reversed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a velocity v(x, t) with data at t = 1 to -v(x, 1 - t), with data at t = 0.

    cos and sin of (1 - t) f are linear combinations of cos and sin of t f, so only the time embedder's first layer and the sign
    of the last layer change.
    """
    name = "t_embedder.mlp.0.weight"
    cosine, sine = tensors[name].double().chunk(2, dim=1)
    half = cosine.shape[1]
    frequency = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(MAX_PERIOD) / half))
    turned = [cosine * frequency.cos() + sine * frequency.sin(), cosine * frequency.sin() - sine * frequency.cos()]
    last = {f"final_layer.linear.{part}": -tensors[f"final_layer.linear.{part}"] for part in ("weight", "bias")}
    return {**tensors, name: torch.cat(turned, 1).float(), **last}
