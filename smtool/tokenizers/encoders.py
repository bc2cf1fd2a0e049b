"""Frozen encoders as tokenizers without a decoder: patch tokens or last feature map of a timm model, and SqueezeNet."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from smtool.errors import CheckpointError
from smtool.features.pictures import as_rgb
from smtool.image_shape import ImageSize
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import point_posterior
from smtool.tokenizers.functions import FunctionTokenizer

SQUEEZENET = "squeezenet"
SIDE = 256
"""Default side of images for encoders that accept any side; autoencoders without a recipe are measured at this side."""
_SQUEEZENET_CELL = 16


def is_encoder(what: str) -> bool:
    return what == SQUEEZENET or what.startswith("timm:")


def open_encoder(
    what: str,
    *,
    device: str = "cpu",
    image_size: ImageSize | None = None,
    image_channels: int = 3,
    weights_dir: Path | None = None,
) -> FunctionTokenizer:
    """Open `timm:MODEL` or `squeezenet` for images of one size. Raises CheckpointError for an impossible size.

    Images of other than three channels are seen as `as_rgb` shows them.
    A plain vision transformer has one latent cell per patch. If the patch does not divide the image sides, the cell is the next
    larger number of pixels that does, and images are resized to one patch per cell: REPA resizes 256 px to 16x16 patches of 14
    for DINOv2. SqueezeNet has 16 pixels per cell. Other timm models use images without resizing; for those with a fixed size,
    image_size = None means that size. weights_dir may contain MODEL.safetensors, a state dict saved from timm.
    """
    from timm import get_pretrained_cfg

    from smtool.features.teachers import Teacher, load_teacher, patch_side
    from smtool.features.timm import known_model

    model = what.removeprefix("timm:")
    if what != SQUEEZENET:
        known_model(model)
    patch = _SQUEEZENET_CELL if what == SQUEEZENET else patch_side(model)
    config = None if patch else get_pretrained_cfg(model)
    fixed = ImageSize(*config.input_size[-2:]) if config and config.fixed_input_size else ImageSize(SIDE, SIDE)
    height, width = sides = image_size or fixed
    cell = next((f for f in range(patch, min(sides) + 1) if height % f == width % f == 0), patch) if patch else 1
    if patch and min(sides) < cell:
        raise CheckpointError(f"{what}: an image of {height}x{width} is smaller than one latent cell, {cell}x{cell} pixels.")
    if patch and (height % cell or width % cell):
        raise CheckpointError(
            f"{what}: no latent cell of at least {patch} pixels, the side of its patches, divides {height} and {width}.",
            hint=f"Use images of another size, such as {height - height % patch}x{width - width % patch}.",
        )
    teacher: Teacher = load_teacher(what, token_grid=(height // cell, width // cell), weights_dir=weights_dir).to(device)
    size = teacher.size if patch else (height, width)

    def encode(images: Tensor) -> Posterior:
        x = (as_rgb(images.float()) / 2 + 0.5 - teacher.mean) / teacher.std
        x = x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bicubic", align_corners=False)
        return point_posterior(teacher.features(teacher.network, x).float())

    channels, rows, columns = _latent_of(what, encode, (image_channels, height, width), device)
    stride = height // rows
    if not patch and ((rows * stride, columns * stride) != (height, width) or stride.bit_count() != 1):      # powers of 2
        raise CheckpointError(
            f"{what} encodes an image of {height}x{width} as {rows}x{columns} cells: the side is not a multiple of its stride.",
            hint="Use images of another side, such as 224 or 256.",
        )
    resized = "" if size == (height, width) else f", images resized to {size[0]}x{size[1]}"
    return FunctionTokenizer(
        encode,
        None,
        network=teacher.network,
        label=model,
        source=what,
        architecture=f"{model} f{stride}, {channels} channels, encode only{resized}",
        digest=teacher.digest,
        downsample=stride,
        latent_channels=channels,
        deterministic=True,
        image_size=sides,
        image_channels=image_channels,
        device=device,
    )


@torch.no_grad()
def _latent_of(
    what: str, encode: Callable[[Tensor], Posterior], shape: tuple[int, int, int], device: str
) -> tuple[int, int, int]:
    """(C, h, w) of the latent of an image of this shape. Raises CheckpointError if the model does not accept it."""
    try:
        mean = encode(torch.zeros(1, *shape, device=device)).mean
    except (AssertionError, RuntimeError, ValueError) as error:      # the type depends on the model
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        size = f"{shape[1]}x{shape[2]}"
        raise CheckpointError(f"{what} cannot encode images of {size}: {reason}", hint="Use another size.") from error
    channels, height, width = mean.shape[1:]
    return channels, height, width
