"""Encoding Spectrum Matching (arXiv 2603.14645, section 3): match the latents' power spectrum to a flattened image spectrum."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from smtool.regularizers.base import Encoding, Regularizer, RegularizerConfig, Shapes
from smtool.spectrum import REFERENCE, Estimator, esm_loss


class ESM(RegularizerConfig):
    """Match the latent power spectrum to the image's, multiplied by f^delta.

    The defaults are the released code's recipe (released-code.md#esm). Its loss depends on the latents' gain as well as on their
    slope (released-code.md#gain-in-esm); `gain = "match"` removes the dependence on gain, `downsample = "antialias"` removes the
    aliasing of the target. The matched gain is computed over the images of one micro-batch on one rank, so it depends slightly
    on the number of ranks and micro-batches.
    """

    only_encoder: ClassVar[bool] = True
    weight: float = Field(0.01, gt=0, description="factor of the divergence between the two spectra")
    delta: float = Field(
        1.0, description="exponent of the flattening: 0 keeps the image spectrum as target, larger values flatten it"
    )
    posterior: Literal["sample", "mean"] = Field(
        "sample", description="match the spectrum of sampled latents or of the posterior means"
    )
    bins: int = Field(16, ge=2, description="number of frequency rings, of equal width, up to the corner frequency")
    downsample: Literal["released", "antialias", "dct-crop"] = Field(
        "released", description="how images are resized to the latent size"
    )
    log: Literal["log1p", "none"] = Field("log1p", description="compression of both power spectra before normalization")
    gain: Literal["raw", "match"] = Field(
        "raw", description='"match": first scale both spectra to the same total power; "raw": do not'
    )

    @property
    def estimator(self) -> Estimator:
        return replace(REFERENCE.loss, bins=self.bins, downsample=self.downsample, log=self.log, gain=self.gain)

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "EncodingSpectrumMatching":
        return EncodingSpectrumMatching(self.weight, self.delta, self.posterior, self.estimator)


class EncodingSpectrumMatching(Regularizer):
    def __init__(self, weight: float, delta: float, posterior: Literal["sample", "mean"], estimator: Estimator) -> None:
        super().__init__()
        self.weight = weight
        self.delta = delta
        self.posterior = posterior
        self.estimator = estimator

    def penalty(self, encoding: Encoding, draw: Any) -> Tensor:
        latents = encoding.latents if self.posterior == "sample" else encoding.posterior.mode()
        return esm_loss(encoding.images, latents, self.delta, self.estimator)
