"""Noise on latents before they are decoded: NextStep-1, RAE and l-DeTok (released-code.md#latent-noise)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from smtool.randomness import Streams
from smtool.regularizers.base import Pair, Regularizer, RegularizerConfig, Shapes

Kind = Literal["nextstep", "rae", "l-detok"]


class LatentNoise(RegularizerConfig):
    """Add noise to latents before they are decoded; the decoder still has to reconstruct the image. Only in training.

    u is drawn for each image from U(0, 1), eps is standard normal. "nextstep" (NextStep-1): z + level u eps, of latents that are
    normalized over channels (model.latent_norm = "channels"). "rae" (RAE, arXiv 2510.11690): z + level u eps; the discriminator
    sees decodings without noise. "l-detok" (l-DeTok, arXiv 2507.15856): (1 - u) z + u level eps. The noise is added before the
    other methods change latents: DSM low-passes it too.
    """

    kind: Kind = Field(description='"nextstep", "rae" or "l-detok"')
    level: float = Field(gt=0, description="largest noise: gamma of NextStep-1 (not published), 0.8 in RAE, 3.0 in l-DeTok")

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "NoisyLatents":
        return NoisyLatents(self.kind, self.level)


@dataclass(frozen=True)
class Noise:
    """Draws of one step: u (B,) in [0, 1), and eps (B, C, h, w)."""

    u: Tensor
    eps: Tensor


class NoisyLatents(Regularizer):
    def __init__(self, kind: Kind, level: float) -> None:
        super().__init__()
        self.kind = kind
        self.level = level

    def draw(self, streams: Streams, shapes: Shapes) -> Noise | None:
        if self.kind == "rae" and streams.turn == "discriminator":
            return None
        u = streams.uniform("latent-noise-level", shapes.latents[:1])
        return Noise(u, streams.batch("latent-noise", shapes.latents))

    def before_decode(self, pairs: list[Pair], draw: Noise | None) -> list[Pair]:
        if draw is None:
            return pairs
        return [Pair(pair.images, self._noisy(pair.latents, draw), pair.weight) for pair in pairs]

    def _noisy(self, latents: Tensor, draw: Noise) -> Tensor:
        height, width = latents.shape[-2:]
        eps = draw.eps[..., :height, :width].to(latents.dtype)      # EQ-VAE may have encoded smaller images
        u = draw.u.to(latents.dtype).view(-1, 1, 1, 1)
        kept = 1 - u if self.kind == "l-detok" else torch.ones_like(u)
        return kept * latents + u * self.level * eps
