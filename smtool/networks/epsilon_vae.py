"""The epsilon-VAE (arXiv 2410.04081): the encoder of the SD-VAE, and a denoiser of pixels as decoder.

Published are the encoder, rectified flow in pixels, the latent that is upsampled and concatenated to x_t, and 1 to 3 sampling
steps. Widths and blocks of the denoiser, the upsampling and the start noise are smtool's own. As in all of smtool, data is at
t = 0 and noise at t = 1.
"""

import hashlib
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from torch import Tensor, nn

from smtool.config import LARGEST_WIDTH
from smtool.networks.denoiser import Denoiser
from smtool.networks.layers import DownsamplePad
from smtool.networks.noise_field import noise_field
from smtool.networks.sd_vae import SDVAE, EncodedBySDVAE, Encoder
from smtool.networks.trainable import AutoencoderConfig, DiffusionAutoencoder
from smtool.storage import tensor_digest


class EpsilonVAE(AutoencoderConfig):
    """An autoencoder whose decoder denoises pixels in a few steps, conditioned on the latent.

    Its pixel loss is the error of the velocity: [reconstruction] loss = "velocity".
    """

    kind: Literal["epsilon-vae"] = "epsilon-vae"
    downsample: int = Field(8, ge=1, description="image side / latent side: 2 ** (number of widths - 1)")
    latent_channels: int = Field(4, ge=1, le=LARGEST_WIDTH, description="number of latent channels")
    norm_groups: int = Field(32, ge=1, description="number of groups in every GroupNorm; must divide every width")
    channels: tuple[int, ...] = Field(
        (), validate_default=True,
        description="width of each level of the encoder; absent: the SD-VAE's, which exist for downsample 8, 16, 32, 64",
    )
    blocks_per_level: int = Field(2, ge=1, le=64, description="resnet blocks per encoder level")
    downsample_pad: DownsamplePad = Field("asymmetric", description="padding of the stride-2 convolutions, as in an SD-VAE")
    quant_convs: bool = Field(True, description="use 1x1 convolutions after the encoder and before the decoder")
    image_channels: int = Field(
        3, ge=1, le=4, description="channels of the images: 1 gray, 2 gray with alpha, 3 color, 4 color with alpha"
    )
    attention: tuple[int, ...] = Field(
        (), description="levels (0: full size) of encoder and denoiser with self-attention after every block"
    )
    mid_attention: bool = Field(True, description="self-attention between the two lowest resnet blocks of encoder and denoiser")
    denoiser_channels: tuple[int, ...] = Field(
        (), validate_default=True,
        description="width of each level of the denoiser, level 0 at full size, at most as many as the encoder has; absent: the "
        "encoder's",
    )
    denoiser_blocks: int = Field(
        2, ge=1, le=64, description="resnet blocks per level on the denoiser's way down; one more on the way up"
    )
    sampling_steps: int = Field(
        1, ge=1, le=1000, description="Euler steps of a decoding, each one pass of the denoiser; published: 1 to 3"
    )

    @field_validator("channels")
    @classmethod
    def _of_an_sd_vae(cls, channels: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        known = {key: info.data[key] for key in ("downsample", "norm_groups") if key in info.data}
        try:
            return SDVAE(channels=channels, **known).channels
        except ValidationError as error:
            raise ValueError(str(error.errors()[0]["ctx"]["error"])) from error

    @field_validator("attention")
    @classmethod
    def _levels_there_are(cls, attention: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        levels = len(info.data.get("channels", ()))
        if levels and not set(attention) <= set(range(levels)):
            raise ValueError(f"attention names levels {attention}, but there are levels 0 to {levels - 1}")
        return tuple(sorted(set(attention)))

    @field_validator("denoiser_channels")
    @classmethod
    def _no_more_levels(cls, widths: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        channels, groups = info.data.get("channels", ()), info.data.get("norm_groups", 1)
        widths = widths or channels
        if channels and len(widths) > len(channels):
            raise ValueError(
                f"the denoiser has {len(widths)} levels, but the encoder has {len(channels)}; it must have at most as many, so "
                "that every image that can be encoded can be halved as often"
            )
        for width in widths:
            if not 1 <= width <= LARGEST_WIDTH or width % groups:
                raise ValueError(f"width {width} is not a multiple of norm_groups = {groups} from 1 to {LARGEST_WIDTH}")
        return widths

    @property
    def of_encoder(self) -> SDVAE:
        """The SD-VAE with this encoder."""
        shared = set(SDVAE.model_fields) & set(type(self).model_fields) - {"kind", "init"}
        return SDVAE(**{key: getattr(self, key) for key in shared})

    def build(self) -> "EpsilonAutoencoder":
        return EpsilonAutoencoder(self)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return self.of_encoder.latent_shape(height, width)


class EpsilonAutoencoder(EncodedBySDVAE, DiffusionAutoencoder):
    """Encoder and denoiser with the two 1x1 convolutions between them. Latents are raw; a decoding depends on them alone."""

    config: EpsilonVAE
    decoder: Denoiser

    def __init__(self, config: EpsilonVAE) -> None:
        super().__init__()
        channels = config.latent_channels
        self.config = config.model_copy(update={"init": ""})
        self.downsample, self.latent_channels, self.image_channels = config.downsample, channels, config.image_channels
        self.label = f"{config.kind} f{config.downsample}d{channels}"
        self.encoder = Encoder(config.of_encoder)
        self.decoder = Denoiser(
            config.image_channels, channels, config.denoiser_channels, blocks=config.denoiser_blocks, groups=config.norm_groups,
            pad=config.downsample_pad, attention=config.attention, middle=config.mid_attention,
        )
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if config.quant_convs else None
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if config.quant_convs else None
        last = f"decoder.up_blocks.{len(config.denoiser_channels) - 1}."
        self.last_layers = (last, "decoder.conv_norm_out.", "decoder.conv_out.")

    @property
    def architecture(self) -> str:
        steps = "1 step" if self.config.sampling_steps == 1 else f"{self.config.sampling_steps} steps"
        return f"epsilon-VAE f{self.downsample}, {self.latent_channels} channels, decoded in {steps}"

    @property
    def digest(self) -> str:
        """sha256 over the weights and over those settings that change the function but no name or shape of a weight."""
        config = self.config
        settings = f"epsilon-vae|{config.downsample_pad}|{config.norm_groups}|{config.sampling_steps} steps"
        return hashlib.sha256(f"{tensor_digest(self.state_dict())}|{settings}".encode()).hexdigest()

    def velocity(self, x_t: Tensor, t: Tensor, latents: Tensor) -> Tensor:
        upsampled = F.interpolate(self.to_decoder(latents), scale_factor=float(self.downsample), mode="nearest")
        velocity: Tensor = self.decoder(x_t, t, upsampled)
        return velocity.to(torch.promote_types(velocity.dtype, torch.float32))

    def decode(self, latents: Tensor) -> Tensor:
        return self.decode_part(latents, 0, 0)

    def decode_part(self, latents: Tensor, top: int, left: int) -> Tensor:
        """Euler steps from noise at t = 1 to t = 0; the result is float32 or float64."""
        f, (height, width) = self.downsample, latents.shape[-2:]
        dtype = torch.promote_types(latents.dtype, torch.float32)
        noise = noise_field(self.image_channels, top * f, left * f, height * f, width * f, dtype=dtype, device=latents.device)
        x = noise.expand(len(latents), -1, -1, -1).contiguous(memory_format=_layout(self.decoder.conv_in.weight))
        steps = self.config.sampling_steps
        for step in range(steps, 0, -1):
            t = torch.full((len(latents),), step / steps, dtype=dtype, device=latents.device)
            x = x - self.velocity(x, t, latents) / steps
        return x


def _layout(weight: Tensor) -> torch.memory_format:
    last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
