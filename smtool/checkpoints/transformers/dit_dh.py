"""Files of DiT-DH (RAE; released-code.md#dit-dh). Their time is smtool's: data at 0, noise at 1."""

from collections.abc import Mapping

from torch import Tensor

from smtool.checkpoints.transformers.lightning_dit import heads_of
from smtool.checkpoints.transformers.published import PublishedTransformer, count, sized, square_side
from smtool.networks.dit_dh import DiTDH

NAME = "DiT-DH"
FIRST_LAYER = "s_embedder.proj.weight"
MARKS = (FIRST_LAYER, "t_embedder.W")


def family(tensors: Mapping[str, Tensor]) -> str:
    return NAME


def published(tensors: dict[str, Tensor], heads: int | None) -> PublishedTransformer:
    """Convert the tensors. The last class embedding is the null class. Raises KeyError or IndexError if tensors are missing."""
    width, channels, patch, _ = tensors[FIRST_LAYER].shape
    side, head_width = square_side(tensors["pos_embed"].shape[1]), len(tensors["x_embedder.proj.weight"])
    total = count(tensors, "blocks")
    depth = sum(len(tensors[f"blocks.{number}.norm1.weight"]) == width for number in range(total))
    heads = heads_of(tensors, "enc_feat_rope", side, width, given=heads)
    head_heads = heads_of(tensors, "dec_feat_rope", side, head_width)
    config = sized(DiTDH, depth, width, patch, heads)
    head = {"head_depth": total - depth, "head_width": head_width, "head_heads": head_heads}
    config = DiTDH.model_validate(config.model_dump() | head)
    kept = {name: tensor for name, tensor in tensors.items() if "_feat_rope." not in name}
    classes = len(tensors["y_embedder.embedding_table.weight"]) - 1
    return PublishedTransformer(NAME, config, (channels, side * patch, side * patch), classes, "flow", kept)
