"""The identity tokenizer, whose latents are the images, for diffusion in pixel space."""

import hashlib
from typing import Literal

import torch
from torch import Tensor

from smtool.config import Config
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import point_posterior
from smtool.tokenizers.functions import FunctionTokenizer

PIXELS = "pixels"


class Pixels(Config):
    """The description of the identity tokenizer in a checkpoint."""

    kind: Literal["pixels"] = "pixels"
    image_channels: int = 3

    def build(self) -> FunctionTokenizer:
        known = PIXELS if self.image_channels == 3 else f"{PIXELS}:{self.image_channels}"
        made = FunctionTokenizer(
            point_posterior,
            _unchanged,
            network=None,
            label=PIXELS,
            source=PIXELS,
            architecture=f"pixels f1, {self.image_channels} channels: the images themselves",
            digest=hashlib.sha256(known.encode()).hexdigest(),
            downsample=1,
            latent_channels=self.image_channels,
            image_channels=self.image_channels,
            stats=LatentStats("scalar", torch.zeros(1, device="cpu"), torch.ones(1, device="cpu"), 0, "images in [-1, 1]"),
            deterministic=True,
            config=self,
        )
        made.scaled_by_bound = True
        return made


def _unchanged(latents: Tensor) -> Tensor:
    return latents
