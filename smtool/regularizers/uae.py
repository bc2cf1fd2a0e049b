"""UAE (arXiv 2512.19693; released-code.md#uae) for convolutional autoencoders: low bands of latents match a frozen network's.

Built is stage 2 of the released repository, not the first version of the paper (FFT bands by iterative residual split).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from smtool.features.teachers import Teacher, load_teacher, without_last_affine
from smtool.randomness import Streams
from smtool.regularizers.base import Encoding, Pair, Regularizer, RegularizerConfig, Shapes
from smtool.regularizers.features import RELEASED_RATIO, features_at
from smtool.spectrum import dct2, zigzag_low_pass, zigzag_rank
from smtool.spectrum.dct import constant, full_precision, without_autocast


class UAE(RegularizerConfig):
    """Match the low DCT bands of latents to a frozen network's features, and decode noisy, low-passed latents to whole images.

    The penalty is the mean squared difference of the first zig-zag DCT coefficients of the clean latents, projected by a trained
    1x1 convolution, and of the features, normalized over channels at each position. Ours, since UAE's latents are features
    themselves: the projection, and the ratio of gradient norms at the encoder's last layer that scales the penalty.
    Each step decodes two latents: z + noise u eps, u ~ U(0, 1) per image, low-passed in some steps, and, with weight `clean`, z
    itself. The discriminator's turn decodes z only.
    """

    teacher: str = Field(
        "timm:vit_base_patch14_reg4_dinov2.lvd142m",
        description="the frozen network: dinov2-s, -b, -l, -g; timm:MODEL (published: DINOv2-B with registers); squeezenet",
    )
    weight: float = Field(0.5, gt=0, description="factor of the band loss, times the ratio of gradient norms")
    band: float = Field(0.25, gt=0, le=1, description="fraction of the DCT coefficients that are compared, the lowest; 64 of 256")
    noise: float = Field(0.8, ge=0, description="largest std of the noise on latents; 0: no noise")
    low_pass: float = Field(0.5, ge=0, le=1, description="probability, per step, that the noisy latents are low-passed")
    fewest: float = Field(
        0.125, gt=0, le=1, description="smallest fraction of coefficients that a low-pass keeps; drawn per image, uniform up to 1"
    )
    clean: float = Field(
        10.0, ge=0, description="weight of the reconstruction from clean latents, that from noisy ones has 1; 0: noisy ones only"
    )

    def learned_from(self) -> tuple[str, ...]:
        return (self.teacher,)

    def problems(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        if self.noise == 0 and self.low_pass == 0 and self.clean > 0:
            yield "clean", "must be 0 without noise and low_pass: the same latents would be decoded twice"

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "BandAligned":
        grid = shapes.latents[-2:]
        teacher = load_teacher(self.teacher, token_grid=grid, weights_dir=weights_dir, key="regularizers.uae.teacher")
        return BandAligned(self, teacher, shapes.latents[1])


@dataclass(frozen=True)
class Perturbation:
    """Draws of one step: std of the noise (B,), noise (B, C, h, w), and fractions of coefficients to keep (B,); None: all."""

    std: Tensor
    noise: Tensor
    kept: Tensor | None


class BandAligned(Regularizer):
    """projection: 1x1 convolution of the latents to the width of the features, trained with the autoencoder."""

    adaptive_weight = RELEASED_RATIO

    def __init__(self, table: UAE, teacher: Teacher, latent_channels: int) -> None:
        super().__init__()
        self.weight = table.weight
        self.table = table
        without_last_affine(teacher.network)
        self.teacher = teacher
        self.projection = nn.Conv2d(latent_channels, teacher.dim, 1)

    def draw(self, streams: Streams, shapes: Shapes) -> Perturbation | None:
        if streams.turn == "discriminator":
            return None
        count, _, height, width = shapes.latents
        std = self.table.noise * streams.uniform("uae-noise-level", (count,))
        filtered = torch.rand((), generator=streams.shared("uae-low-pass")) < self.table.low_pass
        cells, u = height * width, streams.uniform("uae-kept", (count,))
        fewest = max(1, round(self.table.fewest * cells))
        kept = (fewest + (u * (cells - fewest + 1)).floor()).clamp(max=cells) / cells
        return Perturbation(std, streams.batch("uae-noise", shapes.latents), kept if filtered else None)

    def before_decode(self, pairs: list[Pair], draw: Perturbation | None) -> list[Pair]:
        if draw is None:
            return pairs
        noisy = [Pair(pair.images, self._perturbed(pair.latents, draw), pair.weight) for pair in pairs]
        clean = [Pair(pair.images, pair.latents, pair.weight * self.table.clean) for pair in pairs if self.table.clean > 0]
        return noisy + clean

    def penalty(self, encoding: Encoding, draw: Perturbation | None) -> Tensor:
        latents = full_precision(encoding.latents)
        features = features_at(self.teacher, encoding.images, latents.shape[-2:], "teacher").to(latents.dtype)
        with without_autocast(latents):
            difference = self.projection(latents) - _normalized(features)
            compared = _lowest(*latents.shape[-2:], self.table.band, dtype=torch.int64, device=latents.device)
            return dct2(difference).flatten(-2)[..., compared].square().mean()

    def _perturbed(self, latents: Tensor, draw: Perturbation) -> Tensor:
        height, width = latents.shape[-2:]      # smaller than drawn for if EQ-VAE has shrunk the images
        noise = draw.noise[..., :height, :width].to(latents.dtype)
        noisy = full_precision(latents + draw.std.to(latents.dtype).view(-1, 1, 1, 1) * noise)
        if draw.kept is None:
            return noisy
        return zigzag_low_pass(noisy, (draw.kept * height * width).round().clamp(min=1).long())


@constant
def _lowest(height: int, width: int, band: float) -> Tensor:
    """Row-major numbers of the first zig-zag cells, a fraction `band` of all."""
    return (zigzag_rank(height, width).flatten() < max(1, round(band * height * width))).nonzero()[:, 0]


def _normalized(features: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the channels of each cell."""
    return F.layer_norm(features.movedim(1, -1), features.shape[1:2]).movedim(-1, 1)
