"""RAE (arXiv 2510.11690): the features of a frozen encoder are the latents, and a vision transformer decodes them.

The frozen encoder is no part of the weights; it is built by `smtool.features.encoder` and handed in by `attach`.
"""

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from smtool.config import LARGEST_WIDTH
from smtool.networks.posterior import Posterior
from smtool.networks.recompute import Recomputable
from smtool.networks.sizes import PublishedSizes
from smtool.networks.tokenizer import point_posterior
from smtool.networks.trainable import AutoencoderConfig, TrainableAutoencoder
from smtool.networks.transformer import MLP, SelfAttention, position_table
from smtool.storage import tensor_digest

EPS = 1e-12
"""Of the layer norms, as in BERT and the MAE of transformers."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DecoderShape:
    """A size of the decoder: blocks, token width, attention heads, hidden width of the MLPs."""

    depth: int
    width: int
    heads: int
    hidden: int


class RAE(AutoencoderConfig, PublishedSizes):
    """A frozen vision model as encoder, and a ViT decoder of a published or custom size, which alone is trained."""

    SIZES: ClassVar[dict[str, DecoderShape]] = {
        "nano": DecoderShape(4, 128, 4, 512),
        "B": DecoderShape(12, 768, 12, 3072),
        "L": DecoderShape(24, 1024, 16, 4096),
        "XL": DecoderShape(28, 1152, 16, 4096),
    }
    WIDTH_MULTIPLE: ClassVar[tuple[int, str]] = (4, "the sines and cosines of two coordinates")
    has_trained_encoder: ClassVar[bool] = False

    kind: Literal["rae"] = "rae"
    encoder: str = Field(
        "dinov2-b-reg",
        description="the frozen network: dinov2-s-reg, -b-reg (published), -l-reg; siglip2-b; mae-b; dinov2-s, -b, -l, -g; "
        "timm:MODEL, a plain vision transformer; squeezenet; random, which needs no weights",
    )
    encoder_digest: str = Field(
        "", description="sha256 of the encoder's weights; other weights are an error. Empty: any; checkpoints state it"
    )
    latent_channels: int = Field(
        768, ge=2, le=LARGEST_WIDTH, description="width of the encoder's features; follows from the encoder if absent"
    )
    downsample: int = Field(
        16, ge=1, le=512,
        description="image side / latent side; images are resized so that the encoder has one patch for each latent cell",
    )
    size: Literal["nano", "B", "L", "XL", "custom"] = Field(
        "XL", description='of the decoder. B to XL: published; "nano": small, for CPUs; "custom": the four keys below as given'
    )
    depth: int = Field(0, ge=0, le=1000, validate_default=True, description="blocks of the decoder; absent: those of `size`")
    width: int = Field(
        0, ge=0, le=LARGEST_WIDTH, validate_default=True, description="dimension of its tokens; absent: that of `size`"
    )
    heads: int = Field(
        0, ge=0, validate_default=True, description="its attention heads, which must divide width; absent: those of `size`"
    )
    hidden: int = Field(
        0, ge=0, le=LARGEST_WIDTH, validate_default=True, description="hidden width of its MLPs; absent: that of `size`"
    )

    @property
    def image_channels(self) -> int:
        return 3

    def build(self) -> "RepresentationAutoencoder":
        return RepresentationAutoencoder(self)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        f = self.downsample
        if height % f or width % f or min(height, width) < 1:
            raise ValueError(f"an image of {height}x{width} cannot be encoded: both sides must be multiples of downsample = {f}")
        return self.latent_channels, height // f, width // f


class RepresentationAutoencoder(TrainableAutoencoder):
    """The decoder, and a frozen encoder once it is attached. Deterministic.

    encoder: module that maps (images (B, 3, H, W) in [-1, 1], grid (h, w)) to features (B, C, h, w), float32, without parameters
    in its state dict; an empty nn.Sequential until `attach`. mean, std: those of the encoder, for intensities in [0, 1]; the
    decoder's output is multiplied by std and shifted by mean. They are stored with the weights.
    """

    deterministic = True
    config: RAE
    decoder: "ViTDecoder"
    last_layers = ("decoder.norm.", "decoder.head.")
    mean: Tensor
    std: Tensor

    def __init__(self, config: RAE) -> None:
        super().__init__()
        self.config = config.model_copy(update={"init": ""})
        self.downsample, self.latent_channels = config.downsample, config.latent_channels
        self.label = f"rae f{self.downsample}d{self.latent_channels}"
        self.encoder: nn.Module = nn.Sequential()
        self.decoder = ViTDecoder(config)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))

    @property
    def has_encoder(self) -> bool:
        return not isinstance(self.encoder, nn.Sequential)

    def attach(self, encoder: nn.Module, *, digest: str, dim: int, mean: Tensor, std: Tensor) -> None:
        """Use a frozen encoder. digest: sha256 of its weights; dim: width of its features; mean, std: 3 values each.

        Raises ValueError if its weights are not those that the config states, or its features have another width.
        """
        config = self.config
        if config.encoder_digest not in ("", digest):
            raise ValueError(
                f"the weights of the encoder {config.encoder} have the digest {digest[:12]}, but "
                f"{config.encoder_digest[:12]} is needed: latents would be others"
            )
        if dim != self.latent_channels:
            raise ValueError(f"the encoder {config.encoder} has {dim} features, but latent_channels is {self.latent_channels}")
        self.config = config.model_copy(update={"encoder_digest": digest})
        self.encoder = encoder
        with torch.no_grad():
            self.mean.copy_(mean.flatten())
            self.std.copy_(std.flatten())

    @property
    def encoder_last_layer(self) -> Tensor:
        """Weight of the decoder's first layer, the nearest to the latents, since nothing of the encoder trains."""
        return self.decoder.embed.weight

    @property
    def decoder_last_layer(self) -> Tensor:
        return self.decoder.head.weight

    @property
    def architecture(self) -> str:
        size = self.config.size if self.config.size != "custom" else f"of {self.config.depth} x {self.config.width}"
        return f"RAE f{self.downsample}, {self.latent_channels} channels, frozen {self.config.encoder}, decoder ViT {size}"

    @property
    def digest(self) -> str:
        """sha256 over the decoder's weights, the name and digest of the encoder, and the settings that no shape shows."""
        config = self.config
        settings = f"rae|{config.encoder}|{config.encoder_digest}|{config.downsample}|{config.heads}"
        return hashlib.sha256(f"{tensor_digest(self.state_dict())}|{settings}".encode()).hexdigest()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Posterior:
        """Features at all latent cells, without gradient. Raises ValueError without an encoder."""
        _, *grid = self.latent_shape(*images.shape[-2:])
        if self.has_encoder:
            latents: Tensor = self.encoder(images, tuple(grid))
        elif images.is_meta:      # shapes only, to predict memory: the encoder stores no activations
            latents = images.new_empty(len(images), self.latent_channels, *grid)
        else:
            raise ValueError(f"{self.label} can only decode here: its frozen encoder {self.config.encoder} was not loaded")
        return point_posterior(latents.to(torch.promote_types(images.dtype, torch.float32)))

    def decode(self, latents: Tensor) -> Tensor:
        images = self.decoder(latents)
        mean, std = (value.to(images.dtype).view(-1, 1, 1) for value in (self.mean, self.std))
        return 2 * (images * std + mean) - 1


class ViTDecoder(nn.Module):
    """Features (B, C, h, w) -> images (B, 3, h * downsample, w * downsample), normalized; in channels_last layout.

    A learned class token precedes the tokens of the cells; sines and cosines of their places are added and not trained. Linear
    layers have PyTorch's initial weights, the class token begins at 0.
    """

    def __init__(self, config: RAE) -> None:
        super().__init__()
        self.patch, self.width = config.downsample, config.width
        self.embed = nn.Linear(config.latent_channels, config.width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.blocks = nn.ModuleList(
            ViTBlock(config.width, heads=config.heads, hidden=config.hidden) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=EPS)
        self.head = nn.Linear(config.width, 3 * config.downsample**2)
        self._places: dict[tuple[int, int, torch.device], Tensor] = {}

    def forward(self, features: Tensor) -> Tensor:
        batch, _, height, width = features.shape
        tokens = self.embed(features.flatten(2).mT)
        tokens = tokens + self._table(height, width, tokens.device).to(tokens.dtype)
        tokens = torch.cat([self.class_token.to(tokens.dtype).expand(batch, -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        pixels = self.head(self.norm(tokens))[:, 1:].unflatten(2, (self.patch, self.patch, 3)).unflatten(1, (height, width))
        images = pixels.transpose(2, 3).reshape(batch, height * self.patch, width * self.patch, 3)
        return images.permute(0, 3, 1, 2)

    def _table(self, height: int, width: int, device: torch.device) -> Tensor:
        """(T, width): sines and cosines of the cells' places. The class token has none."""
        key = (height, width, device)
        if key not in self._places:
            self._places[key] = position_table((height, width), self.width).to(device)
        return self._places[key]


class ViTBlock(Recomputable):
    """Attention, then an MLP with exact GELU, each of the normalized tokens and added to them."""

    def __init__(self, width: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = SelfAttention(width, heads=heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = MLP(width, gelu="none", hidden=hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
