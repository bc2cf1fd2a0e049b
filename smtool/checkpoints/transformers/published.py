"""The result of the readers of all families, and functions that infer settings from shapes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor

from smtool.errors import CheckpointError
from smtool.networks.dit_dh import DiTDH
from smtool.networks.lightning_dit import LightningDiT
from smtool.networks.shapes_only import shapes_only
from smtool.networks.sit import SiT
from smtool.networks.transformer import LatentTransformer, TransformerConfig
from smtool.networks.uvit import UViT

Kind = TypeVar("Kind", bound=TransformerConfig)


@dataclass(frozen=True)
class PublishedTransformer:
    """Weights with smtool's names and convention of time (data at t = 0), and the config of their network.

    family: SiT, REPA, LightningDiT, DiT-DH, U-ViT or DCTdiff; latent_shape: (C, h, w); num_classes: 0 if unconditional;
    process: the diffusion process of its training; averaged: whether the file names the weights an average, None if it does not
    say.
    """

    family: str
    config: SiT | LightningDiT | DiTDH | UViT
    latent_shape: tuple[int, int, int]
    num_classes: int
    process: Literal["flow", "ddpm", "vp-sde"]
    tensors: Mapping[str, Tensor]
    averaged: bool | None = None

    def build(self) -> LatentTransformer:
        with shapes_only():
            network = self.config.build(self.latent_shape, self.num_classes)
        network.load_state_dict(dict(self.tensors), assign=True)
        return network

    @property
    def description(self) -> str:
        config, grid = self.config, "x".join(map(str, self.latent_shape))
        size = config.size if config.size != "custom" else f"{config.depth} blocks of {config.width}"
        classes = f"{self.num_classes} classes" if self.num_classes else "unconditional"
        return f"{self.family}-{size}/{config.patch} for latents of {grid}, {classes}"


def sized(kind: type[Kind], depth: int, width: int, patch: int, heads: int | None) -> Kind:
    """The config with this depth and width: a published size, or custom with the given heads.

    Raises CheckpointError if the size is not published and `heads` is None.
    """
    for size, shape in kind.SIZES.items():
        if (shape.depth, shape.width) == (depth, width) and heads in (None, shape.heads):
            return kind(size=size, patch=patch)
    if heads is None:
        raise CheckpointError(
            f"{depth} blocks of width {width} are not a published size of {kind.__name__}, "
            "and shapes do not show the number of heads.",
            hint=f"Pass --heads {max(1, width // 64)} if each head has width 64.",
        )
    return kind(size="custom", depth=depth, width=width, heads=heads, patch=patch)


def count(names: Iterable[str], part: str) -> int:
    """Number of distinct indices after `part.` in the names."""
    return len({name.split(".")[1] for name in names if name.startswith(f"{part}.")})


def square_side(tokens: int) -> int:
    """Tokens per side of a square grid. Raises CheckpointError if the number is not a square."""
    side = math.isqrt(tokens)
    if side**2 != tokens:
        raise CheckpointError(f"{tokens} positions are not those of a square latent; weights do not show the sides of others.")
    return side
