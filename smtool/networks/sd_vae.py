"""The SD-VAE: recipe table, encoder, decoder (released-code.md#sd-vae)."""

import hashlib
import math
from typing import Literal, cast

import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from smtool.config import LARGEST_WIDTH
from smtool.networks.layers import DownBlock, DownsamplePad, MidBlock, Padding, UpBlock, group_norm, pad_by_reflection
from smtool.networks.norm_silu import norm_silu
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import point_posterior
from smtool.networks.trainable import AutoencoderConfig, TrainableAutoencoder
from smtool.storage import tensor_digest

PUBLISHED_CHANNELS: dict[int, tuple[int, ...]] = {
    8: (128, 256, 512, 512),
    16: (128, 128, 256, 256, 512),
    32: (128, 128, 256, 256, 512, 512),
    64: (128, 128, 256, 256, 512, 512, 1024),
}


class SDVAE(AutoencoderConfig):
    """The convolutional autoencoder of Stable Diffusion, with published or custom widths."""

    kind: Literal["sd-vae"] = "sd-vae"
    downsample: int = Field(8, ge=1, description="image side / latent side: 2 ** (number of widths - 1)")
    latent_channels: int = Field(4, ge=1, le=LARGEST_WIDTH, description="number of latent channels")
    norm_groups: int = Field(32, ge=1, description="number of groups in every GroupNorm; must divide every width")
    channels: tuple[int, ...] = Field(
        (), validate_default=True,
        description="width of each level; absent: the published widths, which exist for downsample 8, 16, 32, 64",
    )
    blocks_per_level: int = Field(2, ge=1, le=64, description="resnet blocks per encoder level; decoder levels have one more")
    downsample_pad: DownsamplePad = Field(
        "asymmetric",
        description='padding of the stride-2 convolutions: "asymmetric" (LDM, diffusers) or "symmetric" (released code)',
    )
    quant_convs: bool = Field(
        True, description="use 1x1 convolutions after the encoder and before the decoder; FLUX and SD3 have none"
    )
    image_channels: int = Field(
        3, ge=1, le=4, description="channels of the images: 1 gray, 2 gray with alpha, 3 color, 4 color with alpha"
    )
    attention: tuple[int, ...] = Field(
        (), description="levels (0: full size) with self-attention after every block; LDM's f16 models have it at level 4"
    )
    mid_attention: bool = Field(True, description="self-attention between the two lowest resnet blocks, as in SD, SDXL, FLUX")
    decoder_channels: tuple[int, ...] = Field(
        (), description="widths of the decoder's levels (0: full size), as in FLUX.2's small decoder; absent: those of `channels`"
    )
    decoder_blocks: int | None = Field(
        None, ge=1, le=65, description="resnet blocks per decoder level; absent: one more than in the encoder"
    )
    padding: Padding = Field(
        "zeros",
        description='edges of the 3x3 convolutions: "zeros", or "reflect" as in some community EQ-VAEs; the stride-2 ones keep '
        "zeros if asymmetric",
    )
    latent_norm: Literal["none", "channels"] = Field(
        "none",
        description='"channels": each latent cell has mean 0 and variance 1 over its channels, and no posterior noise, as in '
        "NextStep-1",
    )

    @field_validator("channels")
    @classmethod
    def _published_or_consistent(cls, channels: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if not {"downsample", "norm_groups"} <= info.data.keys():
            return channels  # errors of these keys are reported separately
        downsample, groups = info.data["downsample"], info.data["norm_groups"]
        channels = channels or _published(downsample)
        if 2 ** (len(channels) - 1) != downsample:
            raise ValueError(
                f"{len(channels)} widths halve the image {len(channels) - 1} times (downsample = {2 ** (len(channels) - 1)}), "
                f"but downsample is {downsample}"
            )
        _check_widths(channels, groups)
        return channels

    @field_validator("decoder_channels")
    @classmethod
    def _as_many_levels(cls, widths: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        channels = info.data.get("channels")
        if not widths or not channels:
            return widths
        if len(widths) != len(channels):
            raise ValueError(f"the decoder has {len(widths)} levels, but the encoder has {len(channels)}; they must be as many")
        _check_widths(widths, info.data["norm_groups"])
        return widths if widths != channels else ()

    @field_validator("attention")
    @classmethod
    def _levels_there_are(cls, attention: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        levels = len(info.data.get("channels", ()))
        if levels and not set(attention) <= set(range(levels)):
            raise ValueError(f"attention names levels {attention}, but there are levels 0 to {levels - 1}")
        return tuple(sorted(set(attention)))

    def build(self) -> "Autoencoder":
        return Autoencoder(self)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of an image. Raises ValueError if a side is not a multiple of the downsampling factor."""
        if height % self.downsample or width % self.downsample or min(height, width) < 1:
            raise ValueError(
                f"an image of {height}x{width} cannot be encoded: both sides must be multiples of downsample = {self.downsample}"
            )
        return self.latent_channels, height // self.downsample, width // self.downsample


class Encoder(nn.Module):
    """Images (B, image_channels, H, W) -> moments (B, 2C, h, w)."""

    def __init__(self, config: SDVAE) -> None:
        super().__init__()
        widths, groups, last = config.channels, config.norm_groups, len(config.channels) - 1
        self.conv_in = nn.Conv2d(config.image_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock(
                widths[max(level - 1, 0)],
                width,
                num_blocks=config.blocks_per_level,
                groups=groups,
                pad=config.downsample_pad if level < last else None,
                attention=level in config.attention,
            )
            for level, width in enumerate(widths)
        )
        self.mid_block = MidBlock(widths[-1], groups=groups, attention=config.mid_attention)
        self.conv_norm_out = group_norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(norm_silu(self.conv_norm_out, self.mid_block(x)))


class Decoder(nn.Module):
    """Latents (B, C, h, w) -> images (B, image_channels, H, W), not clamped."""

    def __init__(self, config: SDVAE) -> None:
        super().__init__()
        widths, groups = (config.decoder_channels or config.channels)[::-1], config.norm_groups
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups=groups, attention=config.mid_attention)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                widths[max(level - 1, 0)],
                width,
                num_blocks=config.decoder_blocks or config.blocks_per_level + 1,
                groups=groups,
                upsample=level < last,
                attention=last - level in config.attention,
            )
            for level, width in enumerate(widths)
        )
        self.conv_norm_out = group_norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], config.image_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        z = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            z = block(z)
        return self.conv_out(norm_silu(self.conv_norm_out, z))


class EncodedBySDVAE(TrainableAutoencoder):
    """Encoder of the SD-VAE, a decoder that ends in `conv_out`, and the two 1x1 convolutions between them, or none."""

    encoder: Encoder
    quant_conv: nn.Conv2d | None
    post_quant_conv: nn.Conv2d | None

    @property
    def encoder_last_layer(self) -> Tensor:
        return self.encoder.conv_out.weight

    @property
    def decoder_last_layer(self) -> Tensor:
        return cast(nn.Conv2d, self.decoder.conv_out).weight

    def encode(self, images: Tensor) -> Posterior:
        self.latent_shape(*images.shape[-2:])
        moments = self.encoder(images)
        return Posterior.from_moments(moments if self.quant_conv is None else self.quant_conv(moments))

    def to_decoder(self, latents: Tensor) -> Tensor:
        """What the decoder gets of raw latents."""
        return latents if self.post_quant_conv is None else self.post_quant_conv(latents)


class Autoencoder(EncodedBySDVAE):
    """Encoder and decoder with the two 1x1 convolutions between them. Latents are raw: no scale factor is applied.

    stats: normalizes the latents for a diffusion model; stored in the checkpoint's metadata, not in the state dict.
    """

    config: SDVAE
    decoder: Decoder

    def __init__(self, config: SDVAE) -> None:
        super().__init__()
        channels = config.latent_channels
        self.config = config.model_copy(update={"init": ""})
        self.downsample, self.latent_channels, self.image_channels = config.downsample, channels, config.image_channels
        self.label = f"{config.kind} f{config.downsample}d{channels}"
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if config.quant_convs else None
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if config.quant_convs else None
        last = f"decoder.up_blocks.{len(config.channels) - 1}."
        self.last_layers = (last, "decoder.conv_norm_out.", "decoder.conv_out.")
        self.deterministic = config.latent_norm == "channels"
        if config.padding == "reflect":
            pad_by_reflection(self)

    @property
    def architecture(self) -> str:
        config = self.config
        padding = f"{config.downsample_pad} padding" + (", edges reflected" if config.padding == "reflect" else "")
        padding += ", latents normalized over channels" if self.deterministic else ""
        return f"AutoencoderKL f{config.downsample}, {config.latent_channels} channels, {padding}"

    @property
    def digest(self) -> str:
        """sha256 over the weights and over those settings that change the function but no name or shape of a weight."""
        weights = tensor_digest(self.state_dict())
        settings = f"{weights}|{self.config.downsample_pad}|{self.config.norm_groups}"
        reflected = "|reflect" if self.config.padding == "reflect" else ""
        normalized = "|latent_norm channels" if self.deterministic else ""
        return hashlib.sha256(f"{settings}{reflected}{normalized}".encode()).hexdigest()

    def encode(self, images: Tensor) -> Posterior:
        posterior = super().encode(images)
        return point_posterior(_over_channels(posterior.mean)) if self.deterministic else posterior

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(self.to_decoder(latents))


def _over_channels(latents: Tensor) -> Tensor:
    """Layer norm without weights over the channels of each cell, eps 1e-6 (released-code.md#latent-noise)."""
    return F.layer_norm(latents.movedim(1, -1), latents.shape[1:2], eps=1e-6).movedim(-1, 1)


def _check_widths(channels: tuple[int, ...], groups: int) -> None:
    for width in channels:
        if width > LARGEST_WIDTH:
            raise ValueError(f"a width must be at most {LARGEST_WIDTH}, but is {width}")
        if width < 1 or width % groups:
            raise ValueError(
                f"width {width} is not a positive multiple of norm_groups = {groups}; "
                f"norm_groups = {math.gcd(groups, *channels)} divides every width"
            )


def _published(downsample: int) -> tuple[int, ...]:
    if downsample not in PUBLISHED_CHANNELS:
        raise ValueError(
            f"no published widths for downsample = {downsample} (there are for {', '.join(map(str, PUBLISHED_CHANNELS))}); "
            "give `channels`, one width per level: 2 ** (number of widths - 1) is the downsampling factor"
        )
    return PUBLISHED_CHANNELS[downsample]
