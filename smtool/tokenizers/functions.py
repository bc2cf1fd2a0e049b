"""A tokenizer made of two functions, which may call another library or a Python object, or be plain arithmetic."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smtool.config import Config
from smtool.image_shape import ImageSize
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.tokenizer import Tokenizer


class FunctionTokenizer(Tokenizer):
    """encode: images (B, channels, H, W) in [-1, 1] -> posterior; decode: raw latents -> images, or None without a decoder.

    network: the module that the functions use, or None. The other arguments are Tokenizer's attributes.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Posterior],
        decode: Callable[[Tensor], Tensor] | None,
        *,
        network: nn.Module | None,
        label: str,
        source: str,
        architecture: str,
        digest: str,
        downsample: int,
        latent_channels: int,
        stats: LatentStats | None = None,
        deterministic: bool = False,
        image_size: ImageSize | None = None,
        image_channels: int = 3,
        recipe: Mapping[str, Any] | None = None,
        config: Config | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self.network = network
        self.label, self.source, self._architecture, self._digest = label, source, architecture, digest
        self.downsample, self.latent_channels, self.stats = downsample, latent_channels, stats
        self.deterministic, self.image_size, self.recipe = deterministic, image_size, dict(recipe or {})
        self.config, self.image_channels = config, image_channels
        self._encode, self._decode, self._device = encode, decode, torch.device(device)

    @property
    def can_decode(self) -> bool:
        return self._decode is not None

    @property
    def architecture(self) -> str:
        return self._architecture

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def device(self) -> torch.device:
        return self._device

    def encode(self, images: Tensor) -> Posterior:
        self.latent_shape(*images.shape[-2:])
        return self._encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return super().decode(latents) if self._decode is None else self._decode(latents)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FunctionTokenizer":
        super()._apply(fn, recurse)
        self._device = fn(torch.empty(0, device=self._device)).device
        return self
