"""Teachers: frozen networks with whose features tokens or latents are aligned. DINOv2, any timm model, SqueezeNet.

Normalized images are resized to the size at which the teacher has one feature per token, by bicubic interpolation without
antialiasing, as in REPA (released-code.md#flow-matching-and-repa).
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smtool.errors import RecipeError
from smtool.features.frozen import FrozenInTraining
from smtool.features.pictures import as_rgb
from smtool.features.weights import IMAGENET_MEAN, IMAGENET_STD, WEIGHTS, digest_of, fill, find_weights, load_state

Grid = tuple[int, int]

DINOV2 = {
    "dinov2-s": ("vit_small_patch14_dinov2.lvd142m", "dinov2_vits14_pretrain.pth"),
    "dinov2-b": ("vit_base_patch14_dinov2.lvd142m", "dinov2_vitb14_pretrain.pth"),
    "dinov2-l": ("vit_large_patch14_dinov2.lvd142m", "dinov2_vitl14_pretrain.pth"),
    "dinov2-g": ("vit_giant_patch14_dinov2.lvd142m", "dinov2_vitg14_pretrain.pth"),
    "dinov2-s-reg": ("vit_small_patch14_reg4_dinov2.lvd142m", "dinov2_vits14_reg4_pretrain.pth"),
    "dinov2-b-reg": ("vit_base_patch14_reg4_dinov2.lvd142m", "dinov2_vitb14_reg4_pretrain.pth"),
    "dinov2-l-reg": ("vit_large_patch14_reg4_dinov2.lvd142m", "dinov2_vitl14_reg4_pretrain.pth"),
}


class Teacher(FrozenInTraining):
    """uint8 images (B, C, H, W) of one to four channels (`as_rgb`) -> features (B, dim, *grid), float32.

    size: (height, width) that images are resized to; mean, std: per channel, for intensities in [0, 1]; features: function that
    gets the features from the network and its input; digest: sha256 of its weights. precision: of the network, after the resize.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        digest: str,
        size: Grid,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        features: Callable[[nn.Module, Tensor], Tensor],
    ) -> None:
        super().__init__(network)
        self.name, self.digest, self.size, self.features = name, digest, size, features
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        shape = self.forward(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape
        self.dim, self.grid = shape[1], (shape[2], shape[3])

    mean: Tensor
    std: Tensor

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"uint8 images (B, C, H, W) are needed, found {images.dtype} {tuple(images.shape)}")
        x = (as_rgb(images).float() / 255.0 - self.mean) / self.std
        if x.shape[-2:] != self.size:
            x = F.interpolate(x, size=self.size, mode="bicubic", align_corners=False)
        return self._features(x)

    @torch.no_grad()
    def unnormalized(self, images: Tensor) -> Tensor:
        """Features of float images in [-1, 1], resized bilinearly and passed without mean and std (released-code.md#va-vae)."""
        with torch.autocast(self.device.type, enabled=False):
            x = F.interpolate(as_rgb(images).float(), size=self.size, mode="bilinear", align_corners=False)
            return self._features(x)

    def _features(self, x: Tensor) -> Tensor:
        with self.in_precision():
            return self.features(self.network, x).float()


def load_teacher(
    name: str, *, token_grid: Grid, weights_dir: Path | None = None, key: str = "alignment.teacher"
) -> Teacher:
    """The teacher `name` (dinov2-s, -b, -l, -g; timm:MODEL; squeezenet), with one feature per token where its network allows.

    key: of the recipe, for the message. Raises RecipeError for an unknown name, WeightsError if its weights are neither on this
    machine nor downloadable.
    """
    if name == "squeezenet":
        return _squeezenet(token_grid, weights_dir)
    if name in DINOV2:
        model, upstream = DINOV2[name]
        return _timm(name, model, [upstream], token_grid, weights_dir)
    if name.startswith("timm:"):
        model = name.removeprefix("timm:")
        return _timm(name, model, [], token_grid, weights_dir)
    names = ", ".join(DINOV2)
    raise RecipeError(f"{key}: no teacher is called {name!r}.", hint=f"Names are {names}, squeezenet, timm:MODEL.")


def _timm(name: str, model: str, other_files: list[str], token_grid: Grid, weights_dir: Path | None) -> Teacher:
    from timm.data import resolve_model_data_config

    from smtool.features.timm import create, known_model, stored

    known_model(model)
    file = stored(model, weights_dir, other_files)
    patch = patch_side(model)
    size = None if patch is None else (token_grid[0] * patch, token_grid[1] * patch)
    network = create(model, file, **({} if size is None else {"img_size": size}))
    config = resolve_model_data_config(network)
    return Teacher(
        network,
        name=name,
        digest=digest_of(network.state_dict() if file is None else file),
        size=size or config["input_size"][-2:],
        mean=config["mean"],
        std=config["std"],
        features=_timm_features,
    )


def patch_side(model: str) -> int | None:
    """Patch side of a plain vision transformer, which accepts any input size; None for other networks."""
    import timm

    with torch.device("meta"):
        network = timm.create_model(model, num_classes=0)
    embed = getattr(network, "patch_embed", None)
    if embed is None or not hasattr(network, "pos_embed") or not hasattr(network, "num_prefix_tokens"):
        return None
    return int(embed.patch_size[0])


def without_last_affine(network: nn.Module) -> bool:
    """Remove scale and shift of a transformer's last layer norm, so that its tokens have mean 0 and variance 1 over channels.

    Returns whether the network ends with a layer norm.
    """
    norm = getattr(network, "norm", None)
    if not isinstance(norm, nn.LayerNorm):
        return False
    if norm.elementwise_affine:
        with torch.no_grad():
            norm.weight.fill_(1.0)
            norm.bias.zero_()
    return True


def _timm_features(network: nn.Module, x: Tensor) -> Tensor:
    """The last feature map after the final norm, (B, dim, height, width); for a transformer, its patch tokens."""
    found: Tensor = network.forward_features(x)  # type: ignore[operator]
    if found.ndim == 4:
        return found if found.shape[1] == network.num_features else found.permute(0, 3, 1, 2)
    tokens = found[:, int(network.num_prefix_tokens) :]  # type: ignore[arg-type]
    return tokens.mT.unflatten(2, network.patch_embed.grid_size)  # type: ignore[union-attr]


def _squeezenet(token_grid: Grid, weights_dir: Path | None) -> Teacher:
    from torchvision.models import squeezenet1_1

    path = find_weights("squeezenet", weights_dir, purpose="the teacher squeezenet")
    title = WEIGHTS["squeezenet"].title
    with torch.random.fork_rng(devices=[]):
        whole = squeezenet1_1(weights=None)
    fill(whole, load_state(path, title), path, title)
    return Teacher(
        whole.features,
        name="squeezenet",
        digest=digest_of(path),
        size=(squeezenet_side(token_grid[0]), squeezenet_side(token_grid[1])),
        mean=tuple(value / 255.0 for value in IMAGENET_MEAN),
        std=tuple(value / 255.0 for value in IMAGENET_STD),
        features=lambda network, x: network(x),
    )


def squeezenet_side(cells: int) -> int:
    """The largest image side that gives this many cells in SqueezeNet 1.1 (a 3x3 stride-2 convolution, three ceil-mode pools)."""

    def after(side: int) -> int:
        side = (side - 3) // 2 + 1
        for _ in range(3):
            side = -(-(side - 3) // 2) + 1
        return side

    return max(side for side in range(17, 16 * cells + 32) if after(side) == cells)
