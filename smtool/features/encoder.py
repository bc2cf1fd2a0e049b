"""Frozen encoders whose features are the latents of an RAE (`smtool.networks.rae`, arXiv 2510.11690).

A plain vision transformer of timm, SqueezeNet, or a network with fixed random weights. Features have mean 0 and variance 1 over
the channels of each cell: the last layer norm of a transformer loses scale and shift, other networks get a layer norm without
them.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smtool.devices import is_autocast_on
from smtool.errors import RecipeError, WeightsError
from smtool.features.frozen import FrozenInTraining
from smtool.features.random import fixed
from smtool.features.teachers import DINOV2, patch_side, squeezenet_side, without_last_affine
from smtool.features.weights import IMAGENET_MEAN, IMAGENET_STD, WEIGHTS, digest_of, fill, find_weights, load_state
from smtool.networks.rae import RepresentationAutoencoder
from smtool.networks.tokenizer import Tokenizer

MODELS = {
    **DINOV2,
    "siglip2-b": ("vit_base_patch16_siglip_256.v2_webli", ""),
    "mae-b": ("vit_base_patch16_224.mae", "mae_pretrain_vit_base.pth"),
}
"""Short name -> timm's name, and the name of the file of the network's authors, which timm reads too."""
_WIDTHS = {"s": 384, "b": 768, "l": 1024, "g": 1536}
"""Of the features of the short names, by their letter."""
RANDOM, SQUEEZENET = "random", "squeezenet"
RANDOM_CHANNELS, CELL, SQUEEZENET_CHANNELS = 128, 16, 512
_EPS = 1e-6


class FrozenEncoder(FrozenInTraining):
    """Images (B, 3, H, W) in [-1, 1] and a grid (h, w) -> features (B, dim, h, w), float32.

    Images are resized by bicubic interpolation without antialiasing to the sides that give the grid, then normalized.
    side: number of cells -> pixels; features: (network, normalized images, grid) -> (B, dim, h, w); mean, std: (1, 3, 1, 1), for
    intensities in [0, 1]. precision: under autocast, as in training; everywhere else the network computes in float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        dim: int,
        side: Callable[[int], int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        features: Callable[[nn.Module, Tensor, tuple[int, int]], Tensor],
    ) -> None:
        super().__init__(network)
        self.name, self.dim, self.side, self.features = name, dim, side, features
        self.digest = digest_of(network.state_dict())
        self.normalized = without_last_affine(network)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def __call__(self, *args: Any) -> Tensor:
        return super().__call__(*args, is_autocast_on(self.device))

    def forward(self, images: Tensor, grid: tuple[int, int], lowered: bool) -> Tensor:
        size = (self.side(grid[0]), self.side(grid[1]))
        x = images.float() / 2 + 0.5
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="bicubic", align_corners=False)
        with self.in_precision() if lowered else nullcontext():
            found = self.features(self.network, (x - self.mean.float()) / self.std.float(), grid).float()
        return found if self.normalized else F.layer_norm(found.movedim(1, -1), (self.dim,), eps=_EPS).movedim(-1, 1)


@dataclass(frozen=True)
class Described:
    """What is known of an encoder without its weights. patch: pixels of one cell."""

    dim: int
    patch: int


def describe_encoder(name: str) -> Described:
    """Width of features and patch of an encoder. Raises RecipeError for an unknown name, or a network that is no plain ViT."""
    if name == RANDOM:
        return Described(RANDOM_CHANNELS, CELL)
    if name == SQUEEZENET:
        return Described(SQUEEZENET_CHANNELS, CELL)
    if name in MODELS:      # without importing timm, which takes a second
        family, letter = name.split("-")[:2]
        return Described(_WIDTHS[letter], 14 if family == "dinov2" else 16)
    model, _ = _model(name)
    import timm

    if (patch := patch_side(model)) is None:
        raise RecipeError(
            f"model.encoder: {name} is no plain vision transformer.", hint="Use a ViT of timm, squeezenet or random."
        )
    with torch.device("meta"):
        return Described(timm.create_model(model, num_classes=0).num_features, patch)  # type: ignore[arg-type]


def load_encoder(name: str, weights_dir: Path | None = None) -> FrozenEncoder:
    """The encoder `name` with its weights. Raises RecipeError for an unknown name, WeightsError if they cannot be had."""
    if name == RANDOM:
        return _random()
    if name == SQUEEZENET:
        return _squeezenet(weights_dir)
    from timm.data import resolve_model_data_config

    from smtool.features.timm import create, stored

    described, (model, upstream) = describe_encoder(name), _model(name)
    network = create(model, stored(model, weights_dir, [upstream] if upstream else []), dynamic_img_size=True)
    config = resolve_model_data_config(network)
    return FrozenEncoder(
        network, name=name, dim=described.dim, side=lambda cells: cells * described.patch,
        mean=config["mean"], std=config["std"], features=_patch_tokens,
    )


def supply_encoder(autoencoder: Tokenizer, weights_dir: Path | None = None, *, path: Path | None = None) -> None:
    """Attach the frozen encoder that an RAE names, on the RAE's device; nothing for other autoencoders.

    path: of the RAE's file, for messages. Raises WeightsError if the encoder's weights cannot be had, or are others.
    """
    if not isinstance(autoencoder, RepresentationAutoencoder) or autoencoder.has_encoder:
        return
    name, owner = autoencoder.config.encoder, "model.encoder" if path is None else str(path)
    try:
        encoder = load_encoder(name, weights_dir).to(autoencoder.device)
    except WeightsError as error:
        raise WeightsError(f"{owner}: an RAE needs its frozen encoder {name}: {error.message}", hint=error.hint) from error
    try:
        autoencoder.attach(encoder, digest=encoder.digest, dim=encoder.dim, mean=encoder.mean, std=encoder.std)
    except ValueError as error:
        raise WeightsError(f"{owner}: {error}.", hint=f"Use the weights of {name} with which it was trained.") from error


def _model(name: str) -> tuple[str, str]:
    """timm's name of a model, and the name of its authors' file or ""."""
    from smtool.features.timm import known_model

    if name not in MODELS and not name.startswith("timm:"):
        names = ", ".join([*MODELS, SQUEEZENET, RANDOM])
        raise RecipeError(f"model.encoder: no encoder is called {name!r}.", hint=f"Names are {names}, timm:MODEL.")
    model, upstream = MODELS.get(name, (name.removeprefix("timm:"), ""))
    known_model(model)
    return model, upstream


def _patch_tokens(network: nn.Module, x: Tensor, grid: tuple[int, int]) -> Tensor:
    tokens: Tensor = network.forward_features(x)  # type: ignore[operator]
    return tokens[:, int(network.num_prefix_tokens) :].mT.unflatten(2, grid)  # type: ignore[arg-type]


def _squeezenet(weights_dir: Path | None) -> FrozenEncoder:
    from torchvision.models import squeezenet1_1

    path = find_weights("squeezenet", weights_dir, purpose="the encoder squeezenet")
    title = WEIGHTS["squeezenet"].title
    with torch.random.fork_rng(devices=[]):
        whole = squeezenet1_1(weights=None)
    fill(whole, load_state(path, title), path, title)
    return FrozenEncoder(
        whole.features, name=SQUEEZENET, dim=SQUEEZENET_CHANNELS, side=squeezenet_side,
        mean=tuple(value / 255.0 for value in IMAGENET_MEAN), std=tuple(value / 255.0 for value in IMAGENET_STD),
        features=lambda network, x, grid: network(x),
    )


def _random() -> FrozenEncoder:
    """Three convolutions with fixed random weights and biases: no semantics, for trials on machines without weights."""
    with torch.random.fork_rng(devices=[]):
        layers = nn.Sequential(
            fixed(nn.Conv2d(3, 96, 4, stride=4), "rae", 0), nn.ReLU(),
            fixed(nn.Conv2d(96, 128, 2, stride=2), "rae", 1), nn.ReLU(),
            fixed(nn.Conv2d(128, RANDOM_CHANNELS, 2, stride=2), "rae", 2),
        )  # fmt: skip
    return FrozenEncoder(
        layers, name=RANDOM, dim=RANDOM_CHANNELS, side=lambda cells: CELL * cells, mean=(0.5,) * 3, std=(0.25,) * 3,
        features=lambda network, x, grid: network(x),
    )
