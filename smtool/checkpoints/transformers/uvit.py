"""Files of U-ViT (released-code.md#u-vit); tokens are [class, if there are classes; time; patches]."""

from collections.abc import Mapping

from torch import Tensor

from smtool.checkpoints.transformers.published import PublishedTransformer, count, sized, square_side
from smtool.networks.uvit import UViT

NAME = "U-ViT"
FIRST_LAYER = "patch_embed.proj.weight"
MARKS = (FIRST_LAYER,)
IMAGENET_CLASSES = 1000


def family(tensors: Mapping[str, Tensor]) -> str:
    return NAME


def published(tensors: dict[str, Tensor], heads: int | None) -> PublishedTransformer:
    """Convert the tensors. A table of 1000 class embeddings has no null class.

    Raises KeyError or IndexError if tensors are missing.
    """
    width, channels, patch, _ = tensors[FIRST_LAYER].shape
    table = tensors.get("label_emb.weight")
    config = sized(UViT, 2 * count(tensors, "in_blocks"), width, patch, heads)
    null_class = table is None or len(table) != IMAGENET_CLASSES
    config = config.model_copy(update={"final_conv": "final_layer.weight" in tensors, "null_class": null_class})
    side = square_side(tensors["pos_embed"].shape[1] - (1 if table is None else 2)) * patch
    num_classes = 0 if table is None else len(table) - null_class
    return PublishedTransformer(family(tensors), config, (channels, side, side), num_classes, "ddpm", tensors)
