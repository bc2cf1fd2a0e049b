"""The interface of autoencoders that `train-ae` can train: their recipe tables, and the names of their parts."""

from fnmatch import fnmatchcase
from typing import ClassVar, Self

from pydantic import Field
from torch import Tensor, nn

from smtool.config import Config
from smtool.networks.tokenizer import Tokenizer

ENCODER, DECODER, LAST_LAYERS = "encoder", "decoder", "last-layers"
PARTS = (ENCODER, DECODER, LAST_LAYERS)
"""Parts of an autoencoder. Together, encoder and decoder are the whole network."""


class AutoencoderConfig(Config):
    """Recipe table of a trainable autoencoder. has_trained_encoder: whether the encoder has weights that can train."""

    has_trained_encoder: ClassVar[bool] = True

    init: str = Field(
        "",
        description="start from the weights of this autoencoder, anything that `smtool spectrum` opens and `train-ae` can train; "
        "the other keys of [model] then come from it. Empty: random weights",
    )

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of an image. Raises ValueError if it cannot be encoded."""
        raise NotImplementedError

    def build(self) -> "TrainableAutoencoder":
        """The network, with random weights."""
        raise NotImplementedError


class TrainableAutoencoder(Tokenizer):
    """An autoencoder of smtool: a tokenizer with named parts.

    last_layers: prefixes of the names of the decoder's parameters after the last upsampling.
    """

    config: AutoencoderConfig
    encoder: nn.Module
    decoder: nn.Module
    last_layers: tuple[str, ...]

    @property
    def network(self) -> Self:  # type: ignore[override]
        return self

    @property
    def encoder_last_layer(self) -> Tensor:
        """Weight of the encoder's last convolution, whose gradients define adaptive weights of losses on latents."""
        raise NotImplementedError

    @property
    def decoder_last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution, whose gradients define the adaptive weight of the adversarial loss."""
        raise NotImplementedError

    def part(self, name: str) -> list[str]:
        """Names of the parameters of a part of PARTS, or of those that match a pattern such as `decoder.up_blocks.3.*`."""
        names = [name for name, _ in self.named_parameters()]
        if name == LAST_LAYERS:
            return [one for one in names if one.startswith(self.last_layers)]
        if name in (ENCODER, DECODER):
            return [one for one in names if self._half(one) == name]
        return [one for one in names if fnmatchcase(one, name)]

    @staticmethod
    def _half(name: str) -> str:
        """The half of a parameter; the 1x1 convolutions between encoder and decoder belong to their neighbour."""
        return ENCODER if name.startswith(("encoder.", "quant_conv.")) else DECODER


class DiffusionAutoencoder(TrainableAutoencoder):
    """An autoencoder whose decoder denoises images: it is trained on the velocity of the flow x_t = (1 - t) x + t noise."""

    def velocity(self, x_t: Tensor, t: Tensor, latents: Tensor) -> Tensor:
        """The predicted noise - x at x_t (B, channels, H, W), t (B,) in [0, 1], given raw latents (B, C, h, w)."""
        raise NotImplementedError
