"""Frozen encoders as tokenizers without a decoder: patch tokens or last feature map of a timm model, and SqueezeNet."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from smtool.errors import CheckpointError
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
    what: str, *, device: str = "cpu", image_size: int | None = None, weights_dir: Path | None = None
) -> FunctionTokenizer:
    """Open `timm:MODEL` or `squeezenet` for square images of one side. Raises CheckpointError for an impossible side.

    A plain vision transformer has one latent cell per patch. If the patch does not divide the image side, the cell is the next
    larger number of pixels that does, and images are resized to one patch per cell: REPA resizes 256 px to 16x16 patches of 14
    for DINOv2. SqueezeNet has 16 pixels per cell. Other timm models use images without resizing; for those with a fixed side,
    image_size = None means that side. weights_dir may contain MODEL.safetensors, a state dict saved from timm.
    """
    from timm import get_pretrained_cfg

    from smtool.features.teachers import Teacher, load_teacher, patch_side
    from smtool.features.timm import known_model

    model = what.removeprefix("timm:")
    if what != SQUEEZENET:
        known_model(model)
    patch = _SQUEEZENET_CELL if what == SQUEEZENET else patch_side(model)
    config = None if patch else get_pretrained_cfg(model)
    side = image_size or (config.input_size[-1] if config and config.fixed_input_size else SIDE)
    cell = next((f for f in range(patch, side + 1) if side % f == 0), patch) if patch else 1
    if patch and side < cell:
        raise CheckpointError(f"{what}: an image of {side}x{side} is smaller than one latent cell, {cell}x{cell} pixels.")
    teacher: Teacher = load_teacher(what, token_grid=(side // cell, side // cell), weights_dir=weights_dir).to(device)
    size = teacher.size if patch else (side, side)

    def encode(images: Tensor) -> Posterior:
        x = (images.float() / 2 + 0.5 - teacher.mean) / teacher.std
        x = x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bicubic", align_corners=False)
        return point_posterior(teacher.features(teacher.network, x).float())

    channels, height = _latent_of(what, encode, side, device)
    if not patch and (side % height or (side // height).bit_count() != 1):      # strides are powers of 2
        raise CheckpointError(
            f"{what} encodes an image of {side}x{side} as {height}x{height} cells: the side is not a multiple of its stride.",
            hint="Use images of another side, such as 224 or 256.",
        )
    resized = "" if size == (side, side) else f", images resized to {size[0]}x{size[1]}"
    return FunctionTokenizer(
        encode,
        None,
        network=teacher.network,
        label=model,
        source=what,
        architecture=f"{model} f{side // height}, {channels} channels, encode only{resized}",
        digest=teacher.digest,
        downsample=side // height,
        latent_channels=channels,
        deterministic=True,
        image_size=side,
        device=device,
    )


@torch.no_grad()
def _latent_of(what: str, encode: Callable[[Tensor], Posterior], side: int, device: str) -> tuple[int, int]:
    """(C, h) of the latent of an image of this side. Raises CheckpointError if the model does not accept it."""
    try:
        mean = encode(torch.zeros(1, 3, side, side, device=device)).mean
    except (AssertionError, RuntimeError, ValueError) as error:      # the type depends on the model
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"{what} cannot encode images of {side}x{side}: {reason}", hint="Use another size.") from error
    channels, height, width = mean.shape[1:]
    assert height == width      # the image is square
    return channels, height
