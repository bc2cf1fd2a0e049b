"""Files of SiT, and of REPA, which is the same network with projectors beside it (facts section 8.1).

A file of SiT, whose last layer has twice the channels, is turned into our convention exactly: its time runs from noise to data,
and its velocity with it. DiT has the very names and shapes of SiT, but predicts noise: such a file cannot be told from SiT's, and
gives no images.
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


def family(tensors: Mapping[str, Tensor]) -> str:
    _, channels, patch, _ = tensors[FIRST_LAYER].shape
    doubled = len(tensors["final_layer.linear.weight"]) == 2 * channels * patch**2
    return "SiT" if doubled else "REPA"


def published(tensors: dict[str, Tensor], heads: int | None) -> PublishedTransformer:
    """KeyError, IndexError where some are missing. The last row of the classes stands for none."""
    whose = family(tensors)
    tensors = _in_one_row(tensors)
    width, channels, patch, _ = tensors[FIRST_LAYER].shape
    table = tensors.get("y_embedder.embedding_table.weight")
    config = sized(SiT, count(tensors, "blocks"), width, patch, heads)
    side = square_side(tensors["pos_embed"].shape[1]) * patch
    if whose == "SiT":
        tensors = _time_reversed(_without_variance(tensors, channels, patch))
    num_classes = 0 if table is None else len(table) - 1
    return PublishedTransformer(whose, config, (channels, side, side), num_classes, "flow", tensors)


def _in_one_row(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """REPA's first files call the blocks after the aligned one decoder_blocks."""
    first = count(tensors, "blocks")
    return {
        re.sub(r"^decoder_blocks\.(\d+)\.", lambda match: f"blocks.{first + int(match[1])}.", name): value
        for name, value in tensors.items()
    }


def _without_variance(tensors: dict[str, Tensor], channels: int, patch: int) -> dict[str, Tensor]:
    """SiT's last layer without the half of its channels that it throws away."""
    kept = {
        name: tensors[name].unflatten(0, (patch, patch, 2 * channels))[:, :, :channels].flatten(0, 2)
        for name in ("final_layer.linear.weight", "final_layer.linear.bias")
    }
    return {**tensors, **kept}


def _time_reversed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A velocity v(x, t) with data at t = 1 -> -v(x, 1 - t), with data at t = 0.

    cos and sin of (1 - t) f are sums of cos and sin of t f, so the first layer of the time takes the turn in.
    """
    name = "t_embedder.mlp.0.weight"
    cosine, sine = tensors[name].double().chunk(2, dim=1)
    half = cosine.shape[1]
    frequency = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(MAX_PERIOD) / half))
    turned = [cosine * frequency.cos() + sine * frequency.sin(), cosine * frequency.sin() - sine * frequency.cos()]
    last = {f"final_layer.linear.{part}": -tensors[f"final_layer.linear.{part}"] for part in ("weight", "bias")}
    return {**tensors, name: torch.cat(turned, 1).float(), **last}
