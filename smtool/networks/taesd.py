"""The TAESD family of tiny autoencoders (github.com/madebyollin/taesd, taesd.py).

Layouts: plain with 4 channels (SD, SDXL) or 16 (SD3, FLUX.1), pooled with 32 (FLUX.2), f32 with 32 (Sana). Encoder and decoder
are sequences of layers, with the layer numbers of the author's files: in the decoder a clamp and a ReLU, which have no weights,
precede the first blocks.
"""

import hashlib
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from smtool.config import LARGEST_WIDTH
from smtool.networks.posterior import Posterior
from smtool.networks.recompute import Recomputable
from smtool.networks.tokenizer import point_posterior
from smtool.networks.trainable import AutoencoderConfig, TrainableAutoencoder
from smtool.storage import tensor_digest

BLOCKS = 3
"""Number of blocks in every stage except the outermost, which has one."""
REACH = 3.0
"""Latents are mapped smoothly into (-REACH, REACH) before they are decoded."""
_POOL_GROUPS, _POOL_FACTOR = 4, 4


class TAESD(AutoencoderConfig):
    """A tiny autoencoder: "plain" (f8), "pooled" (f8, with a pooled branch in the blocks next to the latent) or "f32" (f32)."""

    kind: Literal["taesd"] = "taesd"
    layout: Literal["plain", "pooled", "f32"] = Field(
        "plain", description='"plain": f8; "pooled": f8 with a pooled branch beside the latent; "f32": f32'
    )
    latent_channels: int = Field(4, ge=1, le=LARGEST_WIDTH, description="number of latent channels")
    image_channels: int = Field(
        3, ge=1, le=4, description="channels of the images: 1 gray, 2 gray with alpha, 3 color, 4 color with alpha"
    )
    width: int = Field(
        64, ge=2, le=LARGEST_WIDTH, multiple_of=2, description="channels of every layer; 64 in the published networks"
    )

    @property
    def downsample(self) -> int:
        return 32 if self.layout == "f32" else 8

    def build(self) -> "TinyAutoencoder":
        return TinyAutoencoder(self)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        f = self.downsample
        if height % f or width % f or min(height, width) < 1:
            raise ValueError(f"an image of {height}x{width} cannot be encoded: both sides must be multiples of downsample = {f}")
        return self.latent_channels, height // f, width // f


class TinyAutoencoder(TrainableAutoencoder):
    """The network of TAESD, deterministic. Converts images between [-1, 1] and the author's [0, 1] internally."""

    deterministic = True
    config: TAESD
    encoder: nn.Sequential
    decoder: nn.Sequential

    def __init__(self, config: TAESD) -> None:
        super().__init__()
        self.config = config.model_copy(update={"init": ""})
        self.downsample, self.latent_channels = config.downsample, config.latent_channels
        self.image_channels = config.image_channels
        self.label = f"taesd f{self.downsample}d{config.latent_channels}"
        self.encoder, self.decoder = _encoder(config), _decoder(config)
        last = max(number for number, layer in enumerate(self.decoder) if isinstance(layer, nn.Upsample))
        self.last_layers = tuple(f"decoder.{number}." for number in range(last + 1, len(self.decoder)))

    @property
    def encoder_last_layer(self) -> Tensor:
        return cast(nn.Conv2d, self.encoder[-1]).weight

    @property
    def decoder_last_layer(self) -> Tensor:
        return cast(nn.Conv2d, self.decoder[-1]).weight

    @property
    def architecture(self) -> str:
        return f"TAESD f{self.downsample}, {self.latent_channels} channels, {self.config.layout}"

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{tensor_digest(self.state_dict())}|taesd|{self.config.layout}".encode()).hexdigest()

    def encode(self, images: Tensor) -> Posterior:
        self.latent_shape(*images.shape[-2:])
        latents: Tensor = self.encoder(images / 2 + 0.5)
        return point_posterior(latents.to(torch.promote_types(latents.dtype, torch.float32)))

    def decode(self, latents: Tensor) -> Tensor:
        images: Tensor = self.decoder(latents)
        return 2 * images - 1


class Block(Recomputable):
    """ReLU(conv-ReLU-conv-ReLU-conv(x) + x); if pooled, of x + pool(x)."""

    def __init__(self, width: int, *, pooled: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))
        self.pool = _pool(width) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """Maps latents smoothly into (-REACH, REACH)."""

    def forward(self, z: Tensor) -> Tensor:
        return REACH * torch.tanh(z / REACH)


def _encoder(config: TAESD) -> nn.Sequential:
    width = config.width
    if config.layout == "f32":
        first = [_conv(config.image_channels, width // 2, stride=2), nn.ReLU(), _conv(width // 2, width, stride=2), nn.ReLU()]
    else:
        first = [_conv(config.image_channels, width)]
    layers: list[nn.Module] = [*first, Block(width, pooled=False)]
    for stage in range(3):
        pooled = config.layout == "pooled" and stage == 2
        layers += [_conv(width, width, stride=2, bias=False), *(Block(width, pooled=pooled) for _ in range(BLOCKS))]
    return nn.Sequential(*layers, _conv(width, config.latent_channels))


def _decoder(config: TAESD) -> nn.Sequential:
    factors = (4, 2, 1, 1, 1) if config.layout == "f32" else (1, 1, 1)
    widths = [factor * config.width for factor in factors]
    layers: list[nn.Module] = [Clamp(), _conv(config.latent_channels, widths[0]), nn.ReLU()]
    for stage, (width, after) in enumerate(zip(widths, [*widths[1:], config.width], strict=True)):
        pooled = config.layout == "pooled" and stage == 0
        layers += [Block(width, pooled=pooled) for _ in range(BLOCKS)]
        layers += [nn.Upsample(scale_factor=2), _conv(width, after, bias=False)]
    return nn.Sequential(*layers, Block(config.width, pooled=False), _conv(config.width, config.image_channels))


def _pool(width: int) -> nn.Sequential:
    inner = _POOL_FACTOR * width
    return nn.Sequential(
        nn.Conv2d(width, inner, 1, bias=False),
        nn.GroupNorm(_POOL_GROUPS, inner),
        nn.ReLU(),
        nn.Conv2d(inner, width, 1, bias=False),
    )


def _conv(before: int, after: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, stride=stride, bias=bias)
