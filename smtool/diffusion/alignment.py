"""Aligning a transformer's tokens with a teacher's features: REPA, iREPA and REPA-DoG (facts sections 8.3 and 9).

Each method says what becomes of the features (`target`) and how tokens are brought to them (`projector`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from pydantic import BeforeValidator, Field, field_validator
from torch import Tensor, nn

from smtool.config import LossConfig
from smtool.diffusion.projectors import ConvProjector, mlp_projector
from smtool.errors import RecipeError
from smtool.spectrum import difference_of_gaussians, spatial_normalize

Grid = tuple[int, int]
"""Rows and columns."""


class AlignmentConfig(LossConfig):
    """What all methods have: whose features, how strongly, after which block, and what to do about unlike grids."""

    teacher: str = Field(description="the network whose features are the target")
    features: str = Field(
        "auto",
        description='"online": computed while training; a folder: from that cache; "auto": from the cache that '
        "`smtool prepare --features` made of this teacher, these images and this grid, where there is one, else online",
    )
    weight: float = Field(0.5, gt=0, description="factor of the loss: 0.5 in the paper for all methods (iREPA's own config: 1.0)")
    depth: int = Field(4, ge=1, description="tokens are taken after this block; 4 for SiT-B in the paper, 8 for SiT-XL in REPA")
    resize: Literal["none", "bilinear"] = Field(
        "none", description='"none": the teacher must have one feature per token; "bilinear": resample its features (antialiased)'
    )

    def learned_from(self) -> tuple[str, ...]:
        return (self.teacher,)

    def target(self, features: Tensor) -> Tensor:
        """Features (B, teacher_dim, h, w), float32, as they are to be matched."""
        raise NotImplementedError

    def projector(self, width: int, teacher_dim: int, token_grid: Grid) -> nn.Module:
        """(B, T, width) -> (B, T, teacher_dim)."""
        raise NotImplementedError

    def build(self, width: int, token_grid: Grid, *, teacher_dim: int, teacher_grid: Grid) -> "Alignment":
        """For tokens of this width and grid and features (B, teacher_dim, *teacher_grid); RecipeError if the grids differ."""
        if self.resize == "none" and token_grid != teacher_grid:
            raise RecipeError(
                f"alignment: the transformer has {_by(token_grid)} tokens, but {self.teacher} has {_by(teacher_grid)} features.",
                hint='Change model.patch or data.image_size, or resample the features with alignment.resize = "bilinear".',
            )
        return Alignment(self.projector(width, teacher_dim, token_grid), self.target, token_grid)


class Repa(AlignmentConfig):
    """REPA (arXiv 2410.06940): an MLP brings each token to the feature at its place."""

    kind: Literal["repa"] = "repa"
    hidden: int = Field(2048, ge=1, description="width of the projector's two hidden layers")

    def target(self, features: Tensor) -> Tensor:
        return features

    def projector(self, width: int, teacher_dim: int, token_grid: Grid) -> nn.Module:
        return mlp_projector(width, teacher_dim, hidden=self.hidden)


class ConvConfig(AlignmentConfig):
    """What methods have whose projector is a convolution."""

    kernel: int = Field(3, ge=1, description="side of the convolution; 3 in the papers, 1 if iREPA's command line is not told")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"must be odd, so that the token grid keeps its size, but is {kernel}")
        return kernel

    def projector(self, width: int, teacher_dim: int, token_grid: Grid) -> nn.Module:
        return ConvProjector(width, teacher_dim, kernel=self.kernel, token_grid=token_grid)


class IRepa(ConvConfig):
    """iREPA: a convolution as projector, and features freed of most of their mean over the grid."""

    kind: Literal["irepa"] = "irepa"
    gamma: float = Field(0.6, ge=0, description="share of the mean feature that is subtracted")

    def target(self, features: Tensor) -> Tensor:
        return spatial_normalize(features, self.gamma)


def _infinity_as_text(value: Any) -> Any:
    """TOML's inf as "inf", which JSON can write too."""
    return "inf" if value == float("inf") else value


class RepaDog(ConvConfig):
    """REPA-DoG (Spectrum Matching, Eq. 6): features band-passed by a difference of Gaussians, projected by a convolution.

    The paper prints no widths, so the recipe must. They are in tokens of the transformer's grid. sigma1 = 0, sigma2 = "inf" and
    alpha = gamma is iREPA.
    """

    kind: Literal["repa-dog"] = "repa-dog"
    sigma1: float = Field(ge=0, description="inner Gaussian, in tokens; 0: the features themselves")
    sigma2: Annotated[Literal["inf"] | Annotated[float, Field(ge=0)], BeforeValidator(_infinity_as_text)] = Field(
        description='outer Gaussian, which is subtracted, in tokens; "inf": the mean over the grid'
    )
    alpha: float = Field(1.0, ge=0, description="share of the outer Gaussian that is subtracted; 1: no mean is left")

    def target(self, features: Tensor) -> Tensor:
        return difference_of_gaussians(features, self.sigma1, float(self.sigma2), self.alpha)


AnyAlignment = Annotated[Repa | IRepa | RepaDog, Field(discriminator="kind")]
"""The `[alignment]` table of a recipe."""


class Alignment(nn.Module):
    """The projector, which trains with the transformer, and the loss."""

    def __init__(self, projector: nn.Module, target: Callable[[Tensor], Tensor], token_grid: Grid) -> None:
        super().__init__()
        self.projector = projector
        self.target = target
        self.token_grid = token_grid

    def loss(self, tokens: Tensor, features: Tensor) -> Tensor:
        """-mean cosine between projected tokens (B, T, width) and target features (B, teacher_dim, h, w), in float32.

        Features of another grid are resampled first (the recipe allowed it, or `build` had refused). Gradient flows to the
        tokens and the projector only.
        """
        target = self.target(self._on_token_grid(features.detach().float())).flatten(2).mT
        projected = self.projector(tokens).float()
        return -(F.normalize(projected, dim=-1) * F.normalize(target, dim=-1)).sum(-1).mean()

    def _on_token_grid(self, features: Tensor) -> Tensor:
        if features.shape[-2:] == self.token_grid:
            return features
        return F.interpolate(features, size=self.token_grid, mode="bilinear", align_corners=False, antialias=True)


@dataclass(frozen=True)
class WeightedAlignment:
    """An alignment as a term of a loss: its factor, and the block (from 1) whose tokens it takes."""

    module: Alignment
    weight: float
    depth: int


def _by(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"
