"""EQ-VAE (Kouzelis et al.; released-code.md#eq-vae): decoding a scaled and rotated latent gives the scaled and rotated image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional as F

from smtool.randomness import Streams
from smtool.regularizers.base import Pair, Regularizer, RegularizerConfig, Shapes


class EQVAE(RegularizerConfig):
    """Train the decoder to reconstruct scaled and rotated images from equally scaled and rotated latents.

    With probability `probability`, latents and targets are shrunk and rotated by 90, 180 or 270 degrees; otherwise, with
    probability `prior`, the image is shrunk before it is encoded. Scales are k / h with h the latent side, so that all sizes
    are integers.
    """

    probability: float = Field(0.5, ge=0, le=1, description="fraction of steps with transformed latents and targets")
    prior: float = Field(0.25, ge=0, le=1, description="fraction of the other steps that shrink the image before encoding")
    smallest: float = Field(0.25, gt=0, lt=1, description="smallest scale factor; 0.25: to a quarter of the side")
    anisotropic: bool = Field(False, description="draw separate scales for height and width; false: one scale for both")

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "EquivarianceRegularized":
        return EquivarianceRegularized(self.probability, self.prior, self.smallest, self.anisotropic)

    def problems(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        height, width = shapes.latents[-2:]
        if min(height, width) < 2:
            yield "smallest", f"a {height}x{width} latent cannot be shrunk; use larger images or a smaller downsample"

    def smallest_scale(self, shapes: Shapes) -> float:
        return min(_cells(side, self.smallest).start / side for side in shapes.latents[-2:])


@dataclass(frozen=True)
class Transform:
    """Draws of one step: whether to shrink the images before encoding or the pairs after it; new latent size, quarter turns."""

    moment: str
    size: tuple[int, int]
    turns: int
    downsample: int


class EquivarianceRegularized(Regularizer):
    def __init__(self, probability: float, prior: float, smallest: float, anisotropic: bool) -> None:
        super().__init__()
        self.probability = probability
        self.prior = prior
        self.smallest = smallest
        self.anisotropic = anisotropic

    def draw(self, streams: Streams, shapes: Shapes) -> Transform:
        generator = streams.shared("eq-vae")
        first, second = torch.rand(2, generator=generator).tolist()
        moment = "decode" if first < self.probability else "encode" if second < self.prior else "none"
        turns = int(torch.randint(1, 4, (), generator=generator))
        return Transform(moment, self._size(shapes.latents[-2:], generator), turns, shapes.downsample)

    def before_encode(self, images: Tensor, draw: Transform) -> Tensor:
        if draw.moment != "encode":
            return images
        return _bilinear(images, (draw.size[0] * draw.downsample, draw.size[1] * draw.downsample))

    def before_decode(self, pairs: list[Pair], draw: Transform) -> list[Pair]:
        if draw.moment != "decode":
            return pairs
        return [self._transformed(pair, draw) for pair in pairs]

    def _size(self, sides: tuple[int, ...], generator: Generator) -> tuple[int, int]:
        height, width = sides[-2:]
        drawn = torch.rand(2, generator=generator).tolist()
        rows = _pick(_cells(height, self.smallest), drawn[0])
        if self.anisotropic:
            return rows, _pick(_cells(width, self.smallest), drawn[1])
        return rows, max(1, round(width * rows / height))

    @staticmethod
    def _transformed(pair: Pair, draw: Transform) -> Pair:
        latents = _bilinear(pair.latents, draw.size)
        images = _bilinear(pair.images, (draw.size[0] * draw.downsample, draw.size[1] * draw.downsample))
        return Pair(_turned(images, draw.turns), _turned(latents, draw.turns), pair.weight)


def _cells(side: int, smallest: float) -> range:
    """Possible latent sides: from smallest * side to side - 1 (8..31 for 32 cells, as in the released code)."""
    return range(max(1, round(side * smallest)), side)


def _pick(choices: range, drawn: float) -> int:
    return choices[int(drawn * len(choices))]


def _bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _turned(x: Tensor, turns: int) -> Tensor:
    return torch.rot90(x, turns, dims=(-1, -2))
