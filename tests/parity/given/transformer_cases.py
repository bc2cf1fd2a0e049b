"""The recorded runs of the transformers: sizes, random draws, weights of the terms."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from given import numbers

IMAGES, STEPS = 3, 4
DEPTH, WIDTH, HEADS, PATCH, TAP = 3, 32, 4, 2, 2
CHANNELS, SIDE = 4, 32
"""Size of the latents: the released trainers use 32 cells for images of 256 pixels."""
HIDDEN, FEATURES = 48, 24
CLASSES, DROPOUT = 10, 0.5
LR, EMA_DECAY = 1e-3, 0.9999
ALIGNMENT_WEIGHT = 0.5
SCALE = 0.18215
"""Factor by which REPA multiplies latents of 4 channels."""


@dataclass(frozen=True)
class Case:
    """alignment: projector and normalization of the features. weighting: density of training times, by its released name."""

    name: str
    alignment: Literal["repa", "irepa"] = "repa"
    path: Literal["linear", "cosine"] = "linear"
    weighting: Literal["uniform", "lognormal"] = "uniform"


CASES = (
    Case("repa"),
    Case("repa-cosine-path", path="cosine"),
    Case("repa-lognormal-times", weighting="lognormal"),
    Case("irepa", alignment="irepa"),
)


def mean_and_std(step: int) -> tuple[Tensor, Tensor]:
    """Moments of the stored latents, about as large as those of SD-VAE; the limits to which smtool clamps are not reached."""
    shape = (IMAGES, CHANNELS, SIDE, SIDE)
    return 5 * numbers.normal(shape, "mean", step), 0.1 + numbers.uniform(shape, "std", step)


def images(step: int) -> Tensor:
    return numbers.byte_images((IMAGES, 3, 256, 256), "images", step)


def labels(step: int) -> Tensor:
    return numbers.integers(CLASSES, (IMAGES,), "labels", step)


def channel_stats() -> tuple[Tensor, Tensor]:
    """(mean, std) of iREPA's channels, (C,)."""
    return numbers.normal((CHANNELS,), "channel mean"), 4 + numbers.uniform((CHANNELS,), "channel std")


def normal_of(uniform: Tensor) -> Tensor:
    """The normal number whose distribution function has the value `uniform`: converts a uniform draw to a normal draw."""
    return math.sqrt(2) * torch.erfinv(2 * uniform - 1)


class PatchTeacher(nn.Module):
    """Replaces DINOv2: one convolution of 14 x 14 patches; a normalized image of 224 pixels gives 16 x 16 features."""

    embed_dim = FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, FEATURES, 14, stride=14)
        numbers.fill(dict(self.named_parameters()), "teacher")

    def forward_features(self, x: Tensor) -> dict[str, Tensor | None]:
        """Features under DINOv2's names; tokens are (B, T, FEATURES)."""
        return {"x_norm_clstoken": None, "x_norm_patchtokens": self.patches(x).flatten(2).mT}


def feature_maps() -> Tensor:
    """(2, FEATURES, 16, 16), smoother from left to right than from top to bottom."""
    maps = numbers.normal((2, FEATURES, 16, 16), "feature maps")
    return maps.cumsum(-1) + 0.5
