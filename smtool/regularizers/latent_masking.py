"""Latent masked reconstruction of SSVAE (LMR, arXiv 2512.05394; released-code.md#ssvae): whole images from masked latents."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from smtool.devices import to_device
from smtool.randomness import Streams
from smtool.regularizers.base import Pair, Regularizer, RegularizerConfig, Shapes

Ratio = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


class LatentMasking(RegularizerConfig):
    """Replace random latent cells by a trained vector; the decoder still has to reconstruct the whole image.

    One ratio and one set of cells are drawn per step, for all images of the batch. The defaults are those published for 256 px;
    for 512 px: probabilities = [0.6, 0.1, 0.15, 0.15], block = 2. Cells are masked after all other changes of the latents.
    """

    ratios: tuple[Ratio, ...] = Field(
        (0.0, 0.25, 0.5, 0.75), min_length=1, description="fractions of cells to mask, of which one is drawn"
    )
    probabilities: tuple[Probability, ...] = Field((0.7, 0.1, 0.1, 0.1), description="probability of each ratio; their sum is 1")
    block: int = Field(1, ge=1, description="side of the square blocks of cells that are masked together")

    def problems(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        height, width = shapes.latents[-2:]
        if len(self.probabilities) != len(self.ratios):
            yield "probabilities", f"has {len(self.probabilities)} values for {len(self.ratios)} ratios; give one for each"
        elif abs(sum(self.probabilities) - 1) > 1e-6:
            yield "probabilities", f"must have the sum 1, but it is {sum(self.probabilities):g}"
        if height % self.block or width % self.block:
            yield "block", f"the latent is {height}x{width}, which blocks of {self.block} do not fill; use block = 1"

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "MaskedLatents":
        return MaskedLatents(self.ratios, self.probabilities, self.block, shapes.latents[1])


@dataclass(frozen=True)
class Mask:
    """Draws of one step: the ratio, and random scores (h / block, w / block), of which the lowest are masked."""

    ratio: float
    scores: Tensor


class MaskedLatents(Regularizer):
    """token: (C,), the vector that replaces masked cells, trained with the autoencoder."""

    def __init__(self, ratios: tuple[float, ...], probabilities: tuple[float, ...], block: int, channels: int) -> None:
        super().__init__()
        self.ratios = ratios
        self.probabilities = probabilities
        self.block = block
        self.token = nn.Parameter(torch.randn(channels))

    def draw(self, streams: Streams, shapes: Shapes) -> Mask:
        generator = streams.shared("latent-masking")
        drawn = int(torch.multinomial(torch.tensor(self.probabilities), 1, generator=generator))
        height, width = shapes.latents[-2:]
        return Mask(self.ratios[drawn], torch.rand(height // self.block, width // self.block, generator=generator))

    def before_decode(self, pairs: list[Pair], draw: Mask) -> list[Pair]:
        if draw.ratio == 0:
            return pairs
        return [Pair(pair.images, self._masked(pair.latents, draw), pair.weight) for pair in pairs]

    def _masked(self, latents: Tensor, draw: Mask) -> Tensor:
        masked = to_device(masked_cells(draw, latents.shape[-2:], self.block), latents.device)
        return torch.where(masked, self.token.to(latents.dtype).view(1, -1, 1, 1), latents)


def masked_cells(draw: Mask, size: tuple[int, ...], block: int) -> Tensor:
    """(h, w) bool: a random set of round(ratio * number of blocks) blocks. Smaller latents use the scores of their corner."""
    height, width = size
    scores = draw.scores[: -(-height // block), : -(-width // block)]
    lowest = scores.flatten().argsort()[: round(draw.ratio * scores.numel())]
    masked = torch.zeros(scores.numel(), dtype=torch.bool)
    masked[lowest] = True
    return masked.view(scores.shape).repeat_interleave(block, 0).repeat_interleave(block, 1)[:height, :width]
