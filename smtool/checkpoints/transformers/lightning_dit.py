"""Files of LightningDiT (released-code.md#lightningdit). Its time runs from noise to data, and is turned as SiT's is."""

from collections.abc import Mapping

import torch
from torch import Tensor

from smtool.checkpoints.transformers.published import PublishedTransformer, count, sized, square_side
from smtool.checkpoints.transformers.sit import FIRST_LAYER, time_reversed
from smtool.errors import CheckpointError
from smtool.networks.lightning_dit import LightningDiT, rotary_table

NAME = "LightningDiT"
MARKS = (FIRST_LAYER, "blocks.0.mlp.w12.weight")


def family(tensors: Mapping[str, Tensor]) -> str:
    return NAME


def published(tensors: dict[str, Tensor], heads: int | None) -> PublishedTransformer:
    """Convert the tensors. The last class embedding is the null class. Raises KeyError or IndexError if tensors are missing."""
    width, channels, patch, _ = tensors[FIRST_LAYER].shape
    side = square_side(tensors["pos_embed"].shape[1])
    stated = heads_of(tensors, "feat_rope", side, width, given=heads)
    config = sized(LightningDiT, count(tensors, "blocks"), width, patch, stated)
    config = config.model_copy(update={"qk_norm": "blocks.0.attn.q_norm.weight" in tensors})
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("feat_rope.")}
    classes = len(tensors["y_embedder.embedding_table.weight"]) - 1
    return PublishedTransformer(NAME, config, (channels, side * patch, side * patch), classes, "flow", time_reversed(kept))


def heads_of(tensors: Mapping[str, Tensor], place: str, side: int, width: int, *, given: int | None = None) -> int:
    """Number of heads of `width` numbers, by the file's tables of rotary positions, which are as wide as a head.

    Raises KeyError if they are not those of the published network, and CheckpointError if another number of heads is given.
    """
    names = [f"{place}.freqs_{function}" for function in ("cos", "sin")]
    size = tensors[names[0]].shape[-1]
    known = rotary_table((side, side), size).repeat_interleave(2, -1).float()
    for name, expected in zip(names, known, strict=True):
        if tensors[name].shape != expected.shape or not torch.allclose(tensors[name], expected, atol=1e-4):      # in float32
            raise KeyError(name)
    if given not in (None, width // size):
        raise CheckpointError(
            f"--heads {given}: the file's table of positions ({names[0]}) is that of {width // size} heads.",
            hint="Remove --heads.",
        )
    return width // size
