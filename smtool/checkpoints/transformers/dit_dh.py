"""Files of DiT-DH (RAE; released-code.md#dit-dh). Their time is smtool's: data at 0, noise at 1."""

from collections.abc import Mapping

import torch
from torch import Tensor

from smtool.checkpoints.transformers.published import PublishedTransformer, count, sized, square_side
from smtool.networks.dit_dh import DiTDH
from smtool.networks.lightning_dit import rotary_table

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
    numbers = [tensors[f"{part}_feat_rope.freqs_cos"].shape[1] for part in ("enc", "dec")]      # of a head of body and head
    config = sized(DiTDH, depth, width, patch, heads or width // numbers[0])
    head = {"head_depth": total - depth, "head_width": head_width, "head_heads": head_width // numbers[1]}
    config = DiTDH.model_validate(config.model_dump() | head)
    for part, size in zip(("enc", "dec"), numbers, strict=True):
        known = rotary_table((side, side), size, torch.device("cpu")).repeat_interleave(2, -1).float()
        for function, expected in zip(("cos", "sin"), known, strict=True):
            name = f"{part}_feat_rope.freqs_{function}"
            if not torch.allclose(tensors[name], expected, atol=1e-4):      # positions to 63, in float32
                raise KeyError(name)
    kept = {name: tensor for name, tensor in tensors.items() if "_feat_rope." not in name}
    classes = len(tensors["y_embedder.embedding_table.weight"]) - 1
    return PublishedTransformer(NAME, config, (channels, side * patch, side * patch), classes, "flow", kept)
