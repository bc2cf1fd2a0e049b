"""Kullback-Leibler divergence of the posterior from the standard normal: the variational term of SD-VAE."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from smtool.regularizers.base import Encoding, Regularizer, RegularizerConfig, Shapes


class KL(RegularizerConfig):
    """Penalize the divergence of the posterior from a standard normal.

    normalization = "sum" over C, h, w is added to losses that are means over pixels, as in the paper's code. LDM sums the losses
    over pixels too, which corresponds to "pixels" here: 196,608 times weaker at 256 px (released-code.md#autoencoder-loss).
    """

    only_encoder: ClassVar[bool] = True
    weight: float = Field(1e-6, gt=0, description="factor of the divergence")
    normalization: Literal["sum", "mean", "pixels"] = Field(
        "sum", description='"sum" over C, h, w (released code), "mean" over them, or "pixels": the sum divided by 3 H W (LDM)'
    )

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "KullbackLeibler":
        return KullbackLeibler(self.weight, self.normalization)


class KullbackLeibler(Regularizer):
    def __init__(self, weight: float, normalization: Literal["sum", "mean", "pixels"]) -> None:
        super().__init__()
        self.weight = weight
        self.normalization = normalization

    def penalty(self, encoding: Encoding, draw: Any) -> Tensor:
        total = encoding.posterior.kl().mean()
        values = {"sum": 1, "mean": encoding.latents[0].numel(), "pixels": encoding.images[0].numel()}
        return total / values[self.normalization]
