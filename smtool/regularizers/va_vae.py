"""VA-VAE (arXiv 2501.01423; released-code.md#va-vae): align latents with the features of a frozen vision model."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from smtool.features.teachers import Teacher, load_teacher
from smtool.regularizers.base import Encoding, Regularizer, RegularizerConfig, Shapes
from smtool.regularizers.features import RELEASED_RATIO, Preprocessing, features_at
from smtool.spectrum.dct import full_precision, without_autocast


class VAVAE(RegularizerConfig):
    """Align each latent cell, projected by a trained 1x1 convolution, with a frozen network's feature at the same position.

    The penalty is the mean over cells of relu(1 - cosine_margin - cos(feature, latent)), plus the mean over pairs of cells of
    relu(|cos(latent i, latent j) - cos(feature i, feature j)| - distance_margin). It is scaled by the ratio of gradient norms at
    the encoder's last layer. Features are computed at the size that gives one per latent cell, or resampled to it where the
    network does not allow that. A DINOv2 gets images of 14 px per cell: at downsample 8, 3.06 times the pixels of the images.
    """

    only_encoder: ClassVar[bool] = True
    teacher: str = Field("dinov2-b", description="the frozen network: dinov2-s, -b, -l (published), -g; timm:MODEL; squeezenet")
    weight: float = Field(0.1, gt=0, description="factor of the penalty, times the ratio of gradient norms")
    cosine_margin: float = Field(0.5, ge=0, lt=2, description="cosines above 1 - cosine_margin are not pulled further")
    distance_margin: float = Field(0.25, ge=0, lt=2, description="differences of cosines below it are not penalized")
    preprocessing: Preprocessing = Field(
        "teacher",
        description='images for the frozen network: "teacher": its own mean and std, bicubic resize; "released": [-1, 1] without '
        "mean and std, bilinear resize, as in the released code",
    )

    def learned_from(self) -> tuple[str, ...]:
        return (self.teacher,)

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "FeatureAligned":
        grid = shapes.latents[-2:]
        teacher = load_teacher(self.teacher, token_grid=grid, weights_dir=weights_dir, key="regularizers.va_vae.teacher")
        return FeatureAligned(self, teacher, shapes.latents[1])


class FeatureAligned(Regularizer):
    """projection: 1x1 convolution of the latents to the width of the features, trained with the autoencoder."""

    adaptive_weight = RELEASED_RATIO

    def __init__(self, table: VAVAE, teacher: Teacher, latent_channels: int) -> None:
        super().__init__()
        self.weight = table.weight
        self.cosine_margin = table.cosine_margin
        self.distance_margin = table.distance_margin
        self.preprocessing = table.preprocessing
        self.teacher = teacher
        self.projection = nn.Conv2d(latent_channels, teacher.dim, 1, bias=False)

    def penalty(self, encoding: Encoding, draw: Any) -> Tensor:
        latents = full_precision(encoding.latents)
        features = features_at(self.teacher, encoding.images, latents.shape[-2:], self.preprocessing)
        with without_autocast(latents):
            cells = _directions(self.projection(latents))
            targets = _directions(features.to(latents.dtype))
            return self._cosine_term(cells, targets) + self._distance_term(cells, targets)

    def _cosine_term(self, cells: Tensor, targets: Tensor) -> Tensor:
        return F.relu(1 - self.cosine_margin - (cells * targets).sum(-1)).mean()

    def _distance_term(self, cells: Tensor, targets: Tensor) -> Tensor:
        difference = cells @ cells.mT - targets @ targets.mT      # (B, T, T)
        return F.relu(difference.abs() - self.distance_margin).mean()


def _directions(x: Tensor) -> Tensor:
    """(B, D, h, w) -> unit vectors (B, h w, D)."""
    return F.normalize(x.flatten(2).mT, dim=-1)
