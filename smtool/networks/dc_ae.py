"""DC-AE, the deep compression autoencoder (arXiv 2410.10733), and DC-AE 1.5 (arXiv 2508.00413): recipe table and network."""

import hashlib
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from smtool.config import LARGEST_WIDTH
from smtool.networks.dc_ae_layers import ChannelRMSNorm, Down, EfficientViTBlock, ResBlock, Up, grouped_mean, repeated
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import point_posterior
from smtool.networks.trainable import AutoencoderConfig, TrainableAutoencoder
from smtool.storage import tensor_digest

_WIDTHS, _ENCODER_BLOCKS, _DECODER_BLOCKS = (128, 256, 512, 512, 1024, 1024), (0, 4, 8, 2, 2, 2), (0, 5, 10, 2, 2, 2)
PUBLISHED: dict[int, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    32 * 2**more: (_WIDTHS + (2048,) * more, _ENCODER_BLOCKS + (2,) * more, _DECODER_BLOCKS + (2,) * more) for more in range(3)
}
"""downsample -> widths, blocks of the encoder and of the decoder in DC-AE f32c32, f64c128, f128c512."""
RESIDUAL_LEVELS = 3
"""The first levels, which have residual blocks in the published networks, with BatchNorm in the decoder."""


class DCAE(AutoencoderConfig):
    """The deep compression autoencoder, deterministic: published or custom widths. Level 0 is the full size."""

    kind: Literal["dc-ae"] = "dc-ae"
    downsample: int = Field(32, ge=2, description="image side / latent side: 2 ** (number of widths - 1)")
    latent_channels: int = Field(32, ge=1, le=LARGEST_WIDTH, description="number of latent channels")
    image_channels: int = Field(
        3, ge=1, le=4, description="channels of the images: 1 gray, 2 gray with alpha, 3 color, 4 color with alpha"
    )
    channels: tuple[int, ...] = Field(
        (), validate_default=True,
        description="width of each level; absent: the published widths, which exist for downsample 32, 64, 128",
    )
    encoder_blocks: tuple[int, ...] = Field(
        (), validate_default=True, description="blocks per encoder level, 0 only at level 0; absent: the published numbers"
    )
    decoder_blocks: tuple[int, ...] = Field(
        (), validate_default=True, description="blocks per decoder level, 0 only at level 0; absent: the published numbers"
    )
    attention: tuple[int, ...] | None = Field(
        None, validate_default=True,
        description="levels of EfficientViT blocks (linear attention, gated convolutions) instead of residual blocks; absent: "
        "all from level 3 on; [] in DC-AE 1.5",
    )
    head_channels: int = Field(32, ge=1, le=LARGEST_WIDTH, description="channels of an attention head")
    attention_scales: tuple[int, ...] = Field(
        (), description="odd kernel sizes of further heads on aggregated positions: [5] in Sana's DC-AE"
    )
    batch_norm: tuple[int, ...] | None = Field(
        None, validate_default=True,
        description="levels of the decoder whose residual blocks have BatchNorm and ReLU instead of RMSNorm and SiLU; absent: "
        "the residual levels below 3",
    )
    resampling: Literal["shuffle", "convolution"] = Field(
        "shuffle", description='"shuffle": pixel-(un)shuffle; "convolution": stride 2 and nearest neighbours, as in Sana\'s DC-AE'
    )
    latent_shortcuts: bool = Field(
        True, description="shortcuts around the convolutions next to the latent; false in DC-AE 1.5"
    )
    last_activation: Literal["relu", "silu"] = Field(
        "relu", description='before the decoder\'s last convolution; "silu" in DC-AE 1.5'
    )

    @field_validator("channels", "encoder_blocks", "decoder_blocks")
    @classmethod
    def _as_many_levels(cls, values: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if "downsample" not in info.data:
            return values  # its error is reported separately
        downsample, name = info.data["downsample"], str(info.field_name)
        what = "widths" if name == "channels" else "numbers of blocks"
        if not values:
            return _published(downsample, name)
        if 2 ** (len(values) - 1) != downsample:
            raise ValueError(
                f"{len(values)} {what} halve the image {len(values) - 1} times (downsample = {2 ** (len(values) - 1)}), but "
                f"downsample is {downsample}"
            )
        least = 1 if name == "channels" else 0
        if min(values[0] - least, *(value - 1 for value in values[1:])) < 0 or max(values) > LARGEST_WIDTH:
            raise ValueError(f"{what} must be 1 to {LARGEST_WIDTH}{'' if least else ', or 0 at level 0'}, but are {list(values)}")
        return values

    @field_validator("attention")
    @classmethod
    def _levels_with_attention(cls, levels: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        count = len(info.data.get("channels", ()))
        return _levels("attention", tuple(range(RESIDUAL_LEVELS, count)) if levels is None else levels, count)

    @field_validator("batch_norm")
    @classmethod
    def _residual_levels(cls, levels: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        count, attention = len(info.data.get("channels", ())), info.data.get("attention") or ()
        if levels is None:
            return tuple(level for level in range(min(RESIDUAL_LEVELS, count)) if level not in attention)
        if both := sorted(set(levels) & set(attention)):
            raise ValueError(f"level {both[0]} has EfficientViT blocks (attention), which have no BatchNorm")
        return _levels("batch_norm", levels, count)

    @field_validator("attention_scales")
    @classmethod
    def _odd(cls, scales: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [scale for scale in scales if scale < 1 or scale % 2 == 0 or scale > LARGEST_WIDTH]:
            raise ValueError(f"a kernel size must be odd and positive, but is {wrong[0]}")
        return scales

    @model_validator(mode="after")
    def _divisible(self) -> "DCAE":
        """Shortcuts average or repeat whole groups of channels, and heads divide widths."""
        widths, used = self.channels, 0 if self.encoder_blocks[0] and self.decoder_blocks[0] else 1
        if uneven := [width for width in widths[used:] if self.resampling == "shuffle" and width % 4]:
            raise ValueError(f"channels: a width must be a multiple of 4 for pixel-shuffle, but is {uneven[0]}")
        for level in range(used, len(widths) - 1):
            before, after = widths[level], widths[level + 1]
            if 4 * before % after:
                raise ValueError(
                    f"channels: the shortcut from level {level} to {level + 1} averages groups of 4 * {before} / {after} "
                    f"channels, which is no whole number; use a width that divides {4 * before}"
                )
        if self.latent_shortcuts and widths[-1] % self.latent_channels:
            raise ValueError(
                f"latent_channels: {self.latent_channels} does not divide the last width {widths[-1]}, whose channels the "
                "shortcuts average; use a divisor, or latent_shortcuts = false"
            )
        if wrong := [widths[level] for level in self.attention or () if widths[level] % self.head_channels]:
            raise ValueError(f"head_channels: {self.head_channels} does not divide {wrong[0]}, a width of a level with attention")
        return self

    def build(self) -> "DeepCompressionAutoencoder":
        return DeepCompressionAutoencoder(self)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of an image. Raises ValueError if a side is not a multiple of the downsampling factor."""
        f = self.downsample
        if height % f or width % f or min(height, width) < 1:
            raise ValueError(f"an image of {height}x{width} cannot be encoded: both sides must be multiples of downsample = {f}")
        return self.latent_channels, height // f, width // f

    def block(self, level: int, *, batch_norm: bool = False) -> nn.Module:
        """One block of a level."""
        if level in (self.attention or ()):
            return EfficientViTBlock(self.channels[level], head_channels=self.head_channels, scales=self.attention_scales)
        return ResBlock(self.channels[level], batch_norm=batch_norm)


class Encoder(nn.Module):
    """Images (B, image_channels, H, W) -> latents (B, C, h, w)."""

    def __init__(self, config: DCAE) -> None:
        super().__init__()
        widths, shuffle = config.channels, config.resampling == "shuffle"
        if config.encoder_blocks[0]:
            self.conv_in: nn.Module = nn.Conv2d(config.image_channels, widths[0], 3, padding=1)
        else:
            self.conv_in = Down(config.image_channels, widths[1], shuffle=shuffle, shortcut=False)
        self.down_blocks = nn.ModuleList()
        for level, count in enumerate(config.encoder_blocks):
            layers = [config.block(level) for _ in range(count)]
            if count and level < len(widths) - 1:
                layers.append(Down(widths[level], widths[level + 1], shuffle=shuffle))
            self.down_blocks.append(nn.Sequential(*layers))
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)
        self.shortcut = config.latent_shortcuts

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        z = self.conv_out(x)
        return z + grouped_mean(x, z.shape[1]) if self.shortcut else z


class Decoder(nn.Module):
    """Latents (B, C, h, w) -> images (B, image_channels, H, W), not clamped. up_blocks[level] is the stage of a level."""

    def __init__(self, config: DCAE) -> None:
        super().__init__()
        widths, shuffle = config.channels, config.resampling == "shuffle"
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.up_blocks = nn.ModuleList()
        for level, count in enumerate(config.decoder_blocks):
            layers: list[nn.Module] = []
            if count and level < len(widths) - 1:
                layers.append(Up(widths[level + 1], widths[level], shuffle=shuffle))
            layers += [config.block(level, batch_norm=level in (config.batch_norm or ())) for _ in range(count)]
            self.up_blocks.append(nn.Sequential(*layers))
        width = widths[0 if config.decoder_blocks[0] else 1]
        self.norm_out = ChannelRMSNorm(width)
        if config.decoder_blocks[0]:
            self.conv_out: nn.Conv2d | Up = nn.Conv2d(width, config.image_channels, 3, padding=1)
        else:
            self.conv_out = Up(width, config.image_channels, shuffle=shuffle, shortcut=False)
        self.shortcut, self.width = config.latent_shortcuts, widths[-1]
        self.activation = F.relu if config.last_activation == "relu" else F.silu

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z)
        x = x + repeated(z, self.width) if self.shortcut else x
        for block in reversed(self.up_blocks):
            x = block(x)
        return self.conv_out(self.activation(self.norm_out(x)))


class DeepCompressionAutoencoder(TrainableAutoencoder):
    """Encoder and decoder of DC-AE. Latents are raw: no scale factor is applied.

    last_layers: the blocks at full size with the last norm and convolution; without such blocks, the convolution before the last
    pixel-shuffle and its norm.
    """

    deterministic = True
    config: DCAE
    encoder: Encoder
    decoder: Decoder

    def __init__(self, config: DCAE) -> None:
        super().__init__()
        self.config = config.model_copy(update={"init": ""})
        self.downsample, self.latent_channels = config.downsample, config.latent_channels
        self.image_channels = config.image_channels
        self.label = f"{config.kind} f{config.downsample}d{config.latent_channels}"
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        stage = [f"decoder.up_blocks.0.{number}." for number in range(1, config.decoder_blocks[0] + 1)]
        self.last_layers = (*stage, "decoder.norm_out.", "decoder.conv_out.")

    @property
    def architecture(self) -> str:
        return f"AutoencoderDC f{self.downsample}, {self.latent_channels} channels"

    @property
    def digest(self) -> str:
        """sha256 over the weights and over those settings that change the function but no name or shape of a weight."""
        config = self.config
        settings = f"{config.head_channels}|{config.latent_shortcuts}|{config.last_activation}|{config.resampling}"
        return hashlib.sha256(f"{tensor_digest(self.state_dict())}|dc-ae|{settings}".encode()).hexdigest()

    @property
    def encoder_last_layer(self) -> Tensor:
        return self.encoder.conv_out.weight

    @property
    def decoder_last_layer(self) -> Tensor:
        last = self.decoder.conv_out
        return (last.conv if isinstance(last, Up) else last).weight

    def encode(self, images: Tensor) -> Posterior:
        self.latent_shape(*images.shape[-2:])
        latents: Tensor = self.encoder(images)
        return point_posterior(latents.to(torch.promote_types(latents.dtype, torch.float32)))

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents)


def _published(downsample: int, key: str) -> tuple[int, ...]:
    if downsample not in PUBLISHED:
        raise ValueError(
            f"nothing is published for downsample = {downsample} (there is for {', '.join(map(str, PUBLISHED))}); give one "
            "number per level: 2 ** (number of levels - 1) is the downsampling factor"
        )
    return PUBLISHED[downsample][("channels", "encoder_blocks", "decoder_blocks").index(key)]


def _levels(key: str, levels: tuple[int, ...], count: int) -> tuple[int, ...]:
    if count and not set(levels) <= set(range(count)):
        raise ValueError(f"{key} names levels {list(levels)}, but there are levels 0 to {count - 1}")
    return tuple(sorted(set(levels)))
