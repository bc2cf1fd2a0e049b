"""Alignment of a transformer's tokens with a teacher's features: REPA, iREPA and REPA-DoG.

Each method defines how features are processed (`target`) and how tokens are projected to them (`projector`).
Sources: released-code.md#flow-matching-and-repa, released-code.md#irepa-and-repa-dog.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from pydantic import BeforeValidator, Field, field_validator
from torch import Tensor, nn

from smtool.config import LARGEST_WIDTH, LossConfig
from smtool.diffusion.projectors import ConvProjector, mlp_projector
from smtool.errors import RecipeError
from smtool.spectrum import difference_of_gaussians, spatial_normalize

Grid = tuple[int, int]
"""Rows and columns."""


class AlignmentConfig(LossConfig):
    """Keys of all methods: teacher, weight, block whose tokens are aligned, and treatment of different grids."""

    teacher: str = Field(description="name of the frozen network whose features are the target")
    features: str = Field(
        "auto",
        description='"online": compute features in every step; a folder: read that cache; "auto": read the cache that '
        "`smtool prepare --features` made for this teacher, images and grid, or compute online if there is none",
    )
    weight: float = Field(
        0.5, gt=0, description="factor of the loss; 0.5 in the paper for all methods, 1.0 in iREPA's own config"
    )
    depth: int = Field(
        4, ge=1, description="number of the block after which tokens are taken; 4 for SiT-B in the paper, 8 for SiT-XL in REPA"
    )
    resize: Literal["none", "bilinear"] = Field(
        "none", description='"none": the teacher must have one feature per token; "bilinear": resample features with antialiasing'
    )

    def learned_from(self) -> tuple[str, ...]:
        return (self.teacher,)

    def target(self, features: Tensor) -> Tensor:
        """Features (B, teacher_dim, h, w), float32 -> target features of the same shape."""
        raise NotImplementedError

    def projector(self, width: int, teacher_dim: int, token_grid: Grid) -> nn.Module:
        """A module (B, T, width) -> (B, T, teacher_dim)."""
        raise NotImplementedError

    def build(self, width: int, token_grid: Grid, *, teacher_dim: int, teacher_grid: Grid) -> "Alignment":
        """Build for tokens of this width and grid and features (B, teacher_dim, *teacher_grid).

        Raises RecipeError if the grids differ and resize = "none".
        """
        if self.resize == "none" and token_grid != teacher_grid:
            raise RecipeError(
                f"alignment: the transformer has {_by(token_grid)} tokens, but {self.teacher} has {_by(teacher_grid)} features.",
                hint='Change model.patch or data.image_size, or resample the features with alignment.resize = "bilinear".',
            )
        return Alignment(self.projector(width, teacher_dim, token_grid), self.target, token_grid)


class Repa(AlignmentConfig):
    """REPA (arXiv 2410.06940): an MLP projects each token to the teacher's feature at the same position."""

    kind: Literal["repa"] = "repa"
    hidden: int = Field(2048, ge=1, le=LARGEST_WIDTH, description="width of the projector's two hidden layers")

    def target(self, features: Tensor) -> Tensor:
        return features

    def projector(self, width: int, teacher_dim: int, token_grid: Grid) -> nn.Module:
        return mlp_projector(width, teacher_dim, hidden=self.hidden)


class ConvConfig(AlignmentConfig):
    """Keys of the methods whose projector is a convolution."""

    kernel: int = Field(
        3, ge=1, description="side of the convolution kernel in tokens, odd; 3 in the papers, 1 by default in iREPA's code"
    )

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"must be odd, so that the token grid keeps its size, but is {kernel}")
        return kernel

    def projector(self, width: int, teacher_dim: int, token_grid: Grid) -> nn.Module:
        return ConvProjector(width, teacher_dim, kernel=self.kernel, token_grid=token_grid)


class IRepa(ConvConfig):
    """iREPA: the projector is a convolution, and most of the mean over the grid is subtracted from the features."""

    kind: Literal["irepa"] = "irepa"
    gamma: float = Field(0.6, ge=0, description="fraction of the mean feature that is subtracted")

    def target(self, features: Tensor) -> Tensor:
        return spatial_normalize(features, self.gamma)


def _infinity_as_text(value: Any) -> Any:
    """TOML's inf -> "inf", which JSON can store too."""
    return "inf" if value == float("inf") else value


class RepaDog(ConvConfig):
    """REPA-DoG (Spectrum Matching, Eq. 6): features are band-passed by a difference of Gaussians; convolution as projector.

    Widths are in tokens of the transformer's grid. The paper does not state them, so they are required. sigma1 = 0,
    sigma2 = "inf" and alpha = gamma is iREPA.
    """

    kind: Literal["repa-dog"] = "repa-dog"
    sigma1: float = Field(ge=0, description="width of the inner Gaussian, in tokens; 0: unfiltered features")
    sigma2: Annotated[Literal["inf"] | Annotated[float, Field(ge=0)], BeforeValidator(_infinity_as_text)] = Field(
        description='width of the outer, subtracted Gaussian, in tokens; "inf": the mean over the grid'
    )
    alpha: float = Field(1.0, ge=0, description="factor of the outer Gaussian before it is subtracted; 1: features have mean 0")

    def target(self, features: Tensor) -> Tensor:
        return difference_of_gaussians(features, self.sigma1, float(self.sigma2), self.alpha)


AnyAlignment = Annotated[Repa | IRepa | RepaDog, Field(discriminator="kind")]
"""The `[alignment]` table of a recipe."""


class Alignment(nn.Module):
    """The projector, which is trained with the transformer, and the loss."""

    def __init__(self, projector: nn.Module, target: Callable[[Tensor], Tensor], token_grid: Grid) -> None:
        super().__init__()
        self.projector = projector
        self.target = target
        self.token_grid = token_grid

    def __call__(self, tokens: Tensor, features: Tensor) -> Tensor:
        """The loss, in float32: negative mean cosine of projected tokens (B, T, width) and targets, which are made of features
        (B, teacher_dim, h, w). Features with another grid are resampled first. Gradients flow to tokens and projector only."""
        loss: Tensor = super().__call__(tokens, self.target(self._on_token_grid(features.detach().float())).flatten(2).mT)
        return loss      # the target is made here, outside of what `compile` compiles

    def forward(self, tokens: Tensor, target: Tensor) -> Tensor:
        projected = self.projector(tokens).float()
        return -(F.normalize(projected, dim=-1) * F.normalize(target, dim=-1)).sum(-1).mean()

    def _on_token_grid(self, features: Tensor) -> Tensor:
        if features.shape[-2:] == self.token_grid:
            return features
        return F.interpolate(features, size=self.token_grid, mode="bilinear", align_corners=False, antialias=True)


@dataclass(frozen=True)
class WeightedAlignment:
    """An alignment as a loss term: its factor, and the block (counted from 1) whose tokens it uses."""

    module: Alignment
    weight: float
    depth: int


def _by(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"
