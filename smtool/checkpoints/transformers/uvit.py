"""Files of U-ViT (released-code.md#u-vit); tokens are [class, if there are classes; time; patches]."""

from collections.abc import Mapping

from torch import Tensor

from smtool.checkpoints.transformers.published import PublishedTransformer, count, sized, square_side
from smtool.networks.uvit import UViT

NAME = "U-ViT"
FIRST_LAYER = "patch_embed.proj.weight"


def family(tensors: Mapping[str, Tensor]) -> str:
    return NAME


def published(tensors: dict[str, Tensor], heads: int | None) -> PublishedTransformer:
    """Convert the tensors. Raises KeyError or IndexError if some are missing."""
    width, channels, patch, _ = tensors[FIRST_LAYER].shape
    table = tensors.get("label_emb.weight")
    config = sized(UViT, 2 * count(tensors, "in_blocks"), width, patch, heads)
    config = config.model_copy(update={"final_conv": "final_layer.weight" in tensors})
    side = square_side(tensors["pos_embed"].shape[1] - (1 if table is None else 2)) * patch
    num_classes = 0 if table is None else len(table) - 1
    return PublishedTransformer(family(tensors), config, (channels, side, side), num_classes, "ddpm", tensors)
