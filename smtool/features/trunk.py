"""The frozen transformer of the DINO discriminator (`smtool.networks.dino_gan`): token maps of some blocks."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smtool.errors import RecipeError, WeightsError
from smtool.features.frozen import FrozenInTraining
from smtool.features.weights import IMAGENET_MEAN, IMAGENET_STD, digest_of
from smtool.networks.dino_gan import DEPTHS, DinoDiscriminator

SIDE = 224
_UPSTREAM = {"vit_small_patch8_224.dino": "dino_deitsmall8_pretrain.pth"}


class Trunk(FrozenInTraining):
    """Images (B, 3, H, W) in [-1, 1] -> tokens (heads, B, C, T) of the last block, then of the blocks DEPTHS; float32.

    Images are resized bilinearly to 224 px and normalized by ImageNet's mean and std. The class token is dropped, and no norm
    follows. Gradients flow to the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, *, name: str, dim: int) -> None:
        super().__init__(network)
        self.name, self.dim = name, dim
        self.digest = digest_of(network.state_dict())
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) / 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) / 255.0, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float()
        if x.shape[-2:] != (SIDE, SIDE):
            x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = (x / 2 + 0.5 - self.mean.float()) / self.std.float()
        with self.in_precision():
            tokens = self.network.get_intermediate_layers(x, n=list(DEPTHS))  # type: ignore[operator]
        maps = [one.mT.float() for one in tokens]      # (B, C, T)
        return torch.stack([maps[-1], *maps])


def load_trunk(model: str, weights_dir: Path | None = None) -> Trunk:
    """The trunk `model` of timm, with biases of keys set to 0, which changes no attention.

    Raises RecipeError for another kind of network, WeightsError if its weights cannot be had.
    """
    from smtool.features.teachers import patch_side
    from smtool.features.timm import create, known_model, stored

    known_model(model)
    if patch_side(model) is None:
        raise RecipeError(f"discriminator.trunk: {model} is no plain vision transformer.", hint="Use a ViT of timm.")
    upstream = [_UPSTREAM[model]] if model in _UPSTREAM else []
    network = create(model, stored(model, weights_dir, upstream), img_size=SIDE)
    with torch.no_grad():
        for name, bias in network.named_parameters():
            if name.endswith("attn.qkv.bias"):
                width = len(bias) // 3
                bias[width : 2 * width] = 0.0
    return Trunk(network, name=f"timm:{model}", dim=int(network.embed_dim))  # type: ignore[arg-type]


def supply_trunk(discriminator: nn.Module, weights_dir: Path | None = None) -> None:
    """Attach the frozen trunk that a DINO discriminator names; nothing for other discriminators."""
    if not isinstance(discriminator, DinoDiscriminator):
        return
    try:
        trunk = load_trunk(discriminator.config.trunk, weights_dir)
        discriminator.attach(trunk, dim=trunk.dim)
    except ValueError as error:
        raise RecipeError(f"discriminator.channels: {error}.") from error
    except WeightsError as error:
        raise WeightsError(f"discriminator.trunk: {error.message}", hint=error.hint) from error
