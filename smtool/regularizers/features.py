"""Features of a frozen network at the cells of a latent, for regularizers that compare the two."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from smtool.data.batches import to_uint8
from smtool.features.teachers import Teacher
from smtool.training.terms import AdaptiveWeight

Preprocessing = Literal["teacher", "released"]
RELEASED_RATIO = AdaptiveWeight("encoder", offset=1e-4, cap=1e8)
"""The adaptive weight of VA-VAE's and SSVAE's released code."""


def features_at(teacher: Teacher, images: Tensor, grid: tuple[int, ...], preprocessing: Preprocessing) -> Tensor:
    """Features (B, dim, *grid), float32, of images (B, C, H, W) in [-1, 1]; without gradient.

    preprocessing: "teacher": the teacher's mean and std, bicubic resize; "released": [-1, 1] and bilinear resize, as in
    released-code.md#va-vae. Features with another grid are resampled bilinearly with antialiasing.
    """
    images = images.detach()
    features = teacher(to_uint8(images)) if preprocessing == "teacher" else teacher.unnormalized(images)
    if features.shape[-2:] == grid:
        return features
    return F.interpolate(features, size=grid, mode="bilinear", align_corners=False, antialias=True)
