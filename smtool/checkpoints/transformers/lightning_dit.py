"""Files of LightningDiT (released-code.md#lightningdit). Its time runs from noise to data, and is turned as SiT's is."""

from collections.abc import Mapping

import torch
from torch import Tensor

from smtool.checkpoints.transformers.published import PublishedTransformer, count, sized, square_side
from smtool.checkpoints.transformers.sit import FIRST_LAYER, time_reversed
from smtool.networks.lightning_dit import LightningDiT, rotary_table

NAME = "LightningDiT"
MARKS = (FIRST_LAYER, "blocks.0.mlp.w12.weight")
_TABLES = ("feat_rope.freqs_cos", "feat_rope.freqs_sin")


def family(tensors: Mapping[str, Tensor]) -> str:
    return NAME


def published(tensors: dict[str, Tensor], heads: int | None) -> PublishedTransformer:
    """Convert the tensors. The last class embedding is the null class. Raises KeyError or IndexError if tensors are missing."""
    width, channels, patch, _ = tensors[FIRST_LAYER].shape
    side = square_side(tensors["pos_embed"].shape[1])
    if heads is None:
        heads = width // tensors[_TABLES[0]].shape[1]      # the table is as wide as a head
    config = sized(LightningDiT, count(tensors, "blocks"), width, patch, heads)
    config = config.model_copy(update={"qk_norm": "blocks.0.attn.q_norm.weight" in tensors})
    known = rotary_table((side, side), width // config.heads, torch.device("cpu")).repeat_interleave(2, -1).float()
    for name, expected in zip(_TABLES, known, strict=True):
        if not torch.allclose(tensors[name], expected, atol=1e-4):      # positions to 63, in float32
            raise KeyError(name)
    kept = {name: tensor for name, tensor in tensors.items() if name not in _TABLES}
    classes = len(tensors["y_embedder.embedding_table.weight"]) - 1
    return PublishedTransformer(NAME, config, (channels, side * patch, side * patch), classes, "flow", time_reversed(kept))
