"""Encoding Spectrum Matching (arXiv 2603.14645, section 3): latents with a flattened copy of the image's power spectrum."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from smtool.regularizers.base import Encoding, Regularizer, RegularizerConfig, Shapes
from smtool.spectrum import REFERENCE, Estimator, esm_loss


class ESM(RegularizerConfig):
    """Match the latent spectrum to the image's, flattened by f^delta.

    The defaults are the released code's recipe (facts section 3.1), whose loss depends on the latents' gain as well as on
    their slope; `gain = "match"` removes that, `downsample = "antialias"` removes the aliasing of its target. The matched gain is
    one for all images that a device takes at once, so it alone depends, slightly, on how many ranks or parts share a batch.
    """

    weight: float = Field(0.01, gt=0, description="factor of the divergence")
    delta: float = Field(1.0, description="0 copies the image spectrum; larger flattens the target")
    posterior: Literal["sample", "mean"] = Field("sample", description="latents whose spectrum is matched")
    bins: int = Field(16, ge=2, description="rings of equal width, up to the corner frequency")
    downsample: Literal["released", "antialias", "dct-crop"] = Field("released", description="images to latent size")
    log: Literal["log1p", "none"] = Field("log1p", description="compression of both spectra before they are normalized")
    gain: Literal["raw", "match"] = Field("raw", description='"match" gives both spectra the same total power first')

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
