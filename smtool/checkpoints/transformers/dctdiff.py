"""Files of DCTdiff (arXiv 2412.15032): U-ViT on tokens of DCT coefficients, without a final convolution.

The first layer is a linear map of a token, `proj`; smtool has it as the convolution of a patch of one cell.
"""

from collections.abc import Mapping

from torch import Tensor

from smtool.checkpoints.transformers import uvit
from smtool.checkpoints.transformers.published import PublishedTransformer, count, sized, square_side
from smtool.networks.uvit import UViT

NAME = "DCTdiff"
MARKS = ("proj.weight", "pos_embed", "mid_block.norm1.weight")


def family(tensors: Mapping[str, Tensor]) -> str:
    return NAME


def published(tensors: dict[str, Tensor], heads: int | None) -> PublishedTransformer:
    """Convert the tensors. Class embeddings have no null class. Raises KeyError or IndexError if tensors are missing."""
    width, channels = tensors["proj.weight"].shape
    table = tensors.get("label_emb.weight")
    config = sized(UViT, 2 * count(tensors, "in_blocks"), width, 1, heads)
    config = config.model_copy(update={"final_conv": False, "null_class": table is None})
    side = square_side(tensors["pos_embed"].shape[1] - (1 if table is None else 2))
    renamed = {name: value for name, value in tensors.items() if not name.startswith("proj.")}
    renamed[uvit.FIRST_LAYER] = tensors["proj.weight"][:, :, None, None]
    renamed["patch_embed.proj.bias"] = tensors["proj.bias"]
    num_classes = 0 if table is None else len(table)
    return PublishedTransformer(NAME, config, (channels, side, side), num_classes, "vp-sde", renamed)
