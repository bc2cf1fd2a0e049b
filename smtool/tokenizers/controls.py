"""Controls: linear autoencoders with known spectra, band transfer and shift errors (spectrum.md#band-transfer).

Each acts on image channels separately, with downsampling factor 8. They illustrate the scores and test the spectrum report.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from smtool.config import Config
from smtool.errors import RecipeError
from smtool.networks.tokenizer import point_posterior
from smtool.spectrum.dct import dct2, idct2
from smtool.tokenizers.functions import FunctionTokenizer

FACTOR = 8


@dataclass(frozen=True)
class Control:
    """A description, the number of latent channels for each image channel, and the functions to encode and decode."""

    idea: str
    widening: int
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


class NamedControl(Config):
    """The description of a control in a checkpoint."""

    kind: Literal["control"] = "control"
    name: str
    image_channels: int = 3

    def build(self) -> FunctionTokenizer:
        made = CONTROLS[self.name]
        latent_channels = made.widening * self.image_channels
        known = f"control:{self.name}:{FACTOR}" + ("" if self.image_channels == 3 else f":{self.image_channels}")
        return FunctionTokenizer(
            lambda images: point_posterior(made.encode(images)),
            made.decode,
            network=None,
            label=self.name,
            source=f"control:{self.name}",
            architecture=f"control f{FACTOR}, {latent_channels} channels: {made.idea}",
            digest=hashlib.sha256(known.encode()).hexdigest(),
            downsample=FACTOR,
            latent_channels=latent_channels,
            image_channels=self.image_channels,
            deterministic=True,
            config=self,
        )


def control(name: str, image_channels: int = 3) -> FunctionTokenizer:
    """The control of this name for images of this number of channels. Raises RecipeError, with all names, if it is unknown."""
    if name not in CONTROLS:
        raise RecipeError(f"unknown control {name!r}.", hint=f"There are: {', '.join(CONTROLS)}.")
    return NamedControl(name=name, image_channels=image_channels).build()


def _low_cells(images: Tensor) -> Tensor:
    """The lowest DCT coefficients, scaled so that a constant image keeps its value (ideal downsampling)."""
    return dct2(images)[..., : images.shape[-2] // FACTOR, : images.shape[-1] // FACTOR] / FACTOR


def _padded(cells: Tensor) -> Tensor:
    """The image with these low DCT coefficients and zeros above them (ideal upsampling)."""
    height, width = cells.shape[-2:]
    return idct2(FACTOR * F.pad(cells, (0, width * (FACTOR - 1), 0, height * (FACTOR - 1))))


def _reversed(cells: Tensor) -> Tensor:
    return cells.flip(-2, -1)


def _lower_half(cells: Tensor) -> Tensor:
    """The coefficients whose radius is below half of the latent's highest frequency per axis; the others are set to 0."""
    height, width = cells.shape[-2:]
    rows, columns = torch.arange(height, device=cells.device), torch.arange(width, device=cells.device)
    radius = torch.hypot(rows[:, None] / height, columns / width)
    return cells * (radius < 0.5)


def _blockwise(images: Tensor) -> Tensor:
    """8x8 block DCT, one channel per coefficient."""
    blocks = images.unflatten(-1, (-1, FACTOR)).unflatten(-3, (-1, FACTOR)).transpose(-3, -2)  # (B, C, h, w, 8, 8)
    return dct2(blocks).flatten(-2).movedim(-1, 2).flatten(1, 2)


def _unblocked(latents: Tensor) -> Tensor:
    blocks = latents.unflatten(1, (-1, FACTOR**2)).movedim(2, -1).unflatten(-1, (FACTOR, FACTOR))
    return idct2(blocks).transpose(-3, -2).flatten(-2).flatten(-3, -2)


def _average(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, FACTOR)


def _enlarged(latents: Tensor, mode: str) -> Tensor:
    align = None if mode == "nearest" else False
    return F.interpolate(latents, scale_factor=float(FACTOR), mode=mode, align_corners=align)


CONTROLS = {
    "crop": Control(
        "the low DCT cells, zero-padded back (absolute identity)", 1, lambda x: idct2(_low_cells(x)), lambda z: _padded(dct2(z))
    ),
    "crop-half": Control(
        "crop whose decoder drops the upper half of the latent's frequencies",
        1,
        lambda x: idct2(_low_cells(x)),
        lambda z: _padded(_lower_half(dct2(z))),
    ),
    "scrambled": Control(
        "crop with the order of cells reversed",
        1,
        lambda x: idct2(_reversed(_low_cells(x))),
        lambda z: _padded(_reversed(dct2(z))),
    ),
    "stretch": Control(
        "every 8x8 neighbourhood of DCT cells as the channels of one latent cell (relative identity, lossless)",
        FACTOR**2,
        lambda x: idct2(F.pixel_unshuffle(dct2(x), FACTOR)),
        lambda z: idct2(F.pixel_shuffle(dct2(z), FACTOR)),
    ),
    "stretch-scrambled": Control(
        "stretch with the order of cells reversed",
        FACTOR**2,
        lambda x: idct2(_reversed(F.pixel_unshuffle(dct2(x), FACTOR))),
        lambda z: idct2(F.pixel_shuffle(_reversed(dct2(z)), FACTOR)),
    ),
    "space-to-depth": Control(
        "every 8x8 block of pixels as the channels of one latent cell (perfect reconstruction)",
        FACTOR**2,
        partial(F.pixel_unshuffle, downscale_factor=FACTOR),
        partial(F.pixel_shuffle, upscale_factor=FACTOR),
    ),
    "block-dct": Control("8x8 block DCT as channels (perfect reconstruction)", FACTOR**2, _blockwise, _unblocked),
    **{
        mode: Control(f"average pool, {mode} upsampling", 1, _average, partial(_enlarged, mode=mode))
        for mode in ("nearest", "bilinear", "bicubic")
    },
}
