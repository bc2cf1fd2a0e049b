"""The identity tokenizer, whose latents are the images, for diffusion in pixel space."""

import hashlib
from typing import Literal

from torch import Tensor

from smtool.config import Config
from smtool.networks.tokenizer import point_posterior
from smtool.tokenizers.functions import FunctionTokenizer

PIXELS = "pixels"


class Pixels(Config):
    """The description of the identity tokenizer in a checkpoint."""

    kind: Literal["pixels"] = "pixels"

    def build(self) -> FunctionTokenizer:
        return FunctionTokenizer(
            point_posterior,
            _unchanged,
            network=None,
            label=PIXELS,
            source=PIXELS,
            architecture="pixels f1, 3 channels: the images themselves",
            digest=hashlib.sha256(PIXELS.encode()).hexdigest(),
            downsample=1,
            latent_channels=3,
            deterministic=True,
            config=self,
        )


def _unchanged(latents: Tensor) -> Tensor:
    return latents
