"""Scale equivariance (Skorokhodov et al., arXiv 2502.14831): decoding a smaller latent gives the smaller image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from smtool.randomness import Streams
from smtool.regularizers.base import Pair, Regularizer, RegularizerConfig, Shapes


class ScaleEquivariance(RegularizerConfig):
    """Train the decoder to reconstruct a shrunk image from equally shrunk latents.

    form = "replace" trains each step on one resized pair (scale 1 is the plain reconstruction): the baseline of arXiv 2603.14645.
    "append" keeps the plain pair and adds a resized pair with weight alpha: the original method
    (released-code.md#scale-equivariance; its weight 0.25 is not verified).
    """

    form: Literal["replace", "append"] = Field(
        "replace", description="use a resized pair instead of the plain one, or in addition"
    )
    scales: tuple[float, ...] = Field(
        (1.0, 0.5, 0.25), min_length=1, description="scale factors in (0, 1]; one is drawn per step"
    )
    alpha: float = Field(0.25, gt=0, description='weight of the added pair; only for form = "append"')

    def build(self, shapes: Shapes, weights_dir: Path | None) -> Regularizer:
        return ReplacedByScaled(self.scales) if self.form == "replace" else AppendedScaled(self.scales, self.alpha)

    def problems(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        for scale in self.scales:
            if not 0 < scale <= 1:
                yield "scales", f"must be above 0 and at most 1, but holds {scale:g}"
            elif any((side * scale) % 1 for side in shapes.latents[-2:]):
                height, width = shapes.latents[-2:]
                yield "scales", f"{scale:g} of the {height}x{width} latent is not a whole number of cells; choose another scale"

    def smallest_scale(self, shapes: Shapes) -> float:
        return min(self.scales)


class _Scaled(Regularizer):
    def __init__(self, scales: tuple[float, ...]) -> None:
        super().__init__()
        self.scales = scales

    def draw(self, streams: Streams, shapes: Shapes) -> float:
        return self.scales[int(torch.randint(len(self.scales), (), generator=streams.shared("scale-equivariance")))]


class ReplacedByScaled(_Scaled):
    def before_decode(self, pairs: list[Pair], draw: float) -> list[Pair]:
        return [shrunk(pair, draw) for pair in pairs]


class AppendedScaled(_Scaled):
    def __init__(self, scales: tuple[float, ...], alpha: float) -> None:
        super().__init__(scales)
        self.alpha = alpha

    def before_decode(self, pairs: list[Pair], draw: float) -> list[Pair]:
        smaller = [shrunk(pair, draw) for pair in pairs]
        return pairs + [Pair(pair.images, pair.latents, self.alpha * pair.weight) for pair in smaller]


def shrunk(pair: Pair, scale: float) -> Pair:
    """Both halves of a pair, bilinearly resized by `scale` without antialias."""
    return pair if scale == 1 else Pair(resized(pair.images, scale), resized(pair.latents, scale), pair.weight)


def resized(x: Tensor, scale: float) -> Tensor:
    """Bilinear resize of (B, C, H, W) to round(scale * side), align_corners False, no antialias."""
    size = [round(side * scale) for side in x.shape[-2:]]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
