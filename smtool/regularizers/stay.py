"""Keep the latents of a fine-tuned encoder where the original encoder puts them, so that diffusion models still fit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from smtool.devices import in_float64
from smtool.errors import RecipeError
from smtool.features.frozen import FrozenInTraining
from smtool.image_shape import ImageSize, in_channels
from smtool.networks.tokenizer import Tokenizer
from smtool.regularizers.base import Encoding, Regularizer, RegularizerConfig, Shapes
from smtool.spectrum import dct2
from smtool.spectrum.dct import constant
from smtool.spectrum.transfer import band_of_cell
from smtool.tokenizers import open_tokenizer
from smtool.training.terms import AdaptiveWeight

NUM_BANDS = 4
Band = Annotated[int, Field(ge=1, le=NUM_BANDS)]
_NAMED: dict[str, tuple[int, ...]] = {"all": (1, 2, 3, 4), "low": (1, 2), "high": (3, 4)}
_AT_ONCE = 2**20
"""Pixels that are encoded at once to measure the std of the channels."""


class Stay(RegularizerConfig):
    """Penalize the distance of the posterior mean from that of the frozen original encoder.

    The distance is the mean square of the difference, each channel in units of the original's std over the training images: it is
    the fraction of the original's variance that has moved. bands limits it to some of 4 rings of DCT frequencies, of equal width
    from 0 to the Nyquist frequency of an axis (the corners are in the last), so that training can change the others.
    """

    only_encoder: ClassVar[bool] = True

    weight: float = Field(1.0, gt=0, description="factor of the distance")
    bands: Literal["all", "low", "high"] | tuple[Band, ...] = Field(
        "all", description='bands to keep, 1 (lowest) to 4; "low": 1 and 2, "high": 3 and 4'
    )
    adaptive: bool = Field(
        False, description="multiply by the ratio of gradient norms of reconstruction and distance at the encoder's last layer"
    )
    original: str = Field("", description="the autoencoder whose latents to keep; absent: model.init")

    @property
    def numbers(self) -> tuple[int, ...]:
        return _NAMED[self.bands] if isinstance(self.bands, str) else tuple(sorted(set(self.bands)))

    def problems(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        if not self.original:
            yield "original", "is required, because model.init is not given"
        if not self.numbers:
            yield "bands", f"names no band; give some of 1 to {NUM_BANDS}"
        elif not _members(self.numbers, *shapes.latents[-2:]).any():
            height, width = shapes.latents[-2:]
            yield "bands", f"a {height}x{width} latent has no cell in bands {self.numbers}"

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "StayingNearOriginal":
        size = ImageSize(*shapes.images[-2:])
        opened = open_tokenizer(self.original, weights_dir=weights_dir, image_size=size)
        try:
            found = opened.latent_shape(*shapes.images[-2:])
        except ValueError as error:
            raise RecipeError(f"regularizers.stay.original: {error}.") from error
        if (opened.image_channels, *found) != (shapes.images[1], *shapes.latents[1:]):
            raise RecipeError(
                f"regularizers.stay.original: {self.original} has latents {found} for images of {size} px and "
                f"{in_channels(opened.image_channels)}, but the model of the recipe has {shapes.latents[1:]} for "
                f"{in_channels(shapes.images[1])}.",
                hint="Latents can only stay near latents of the same shape: name the autoencoder of model.init.",
            )
        return StayingNearOriginal(opened, self.weight, self.numbers, adaptive=self.adaptive)


class OriginalEncoder(FrozenInTraining):
    """The posterior mean of a frozen tokenizer: images (B, 3, H, W) -> (B, C, h, w), float32."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.name = f"the original encoder ({tokenizer.source})"
        self.digest = tokenizer.digest
        self._encode = tokenizer.encode

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        with self.in_precision():
            return self._encode(images.float()).mode().float()


class StayingNearOriginal(Regularizer):
    """std: (C,), that of the original's posterior means over the images given to `measure`."""

    std: Tensor

    def __init__(self, tokenizer: Tokenizer, weight: float, bands: tuple[int, ...], *, adaptive: bool) -> None:
        super().__init__()
        self.weight = weight
        self.bands = bands
        self.adaptive_weight = AdaptiveWeight("encoder") if adaptive else None
        self.original = OriginalEncoder(tokenizer)
        self.register_buffer("std", torch.ones(tokenizer.latent_channels))

    @torch.no_grad()
    def measure(self, images: Tensor) -> None:
        size = max(1, _AT_ONCE // images[0, 0].numel())
        means = torch.cat([self.original(part.to(self.original.device)) for part in images.split(size)])
        self.std.copy_(in_float64(means).std((0, 2, 3)).clamp(min=1e-6))

    def penalty(self, encoding: Encoding, draw: Any) -> Tensor:
        moved = (encoding.posterior.mode() - self.original(encoding.images)) / self.std.view(1, -1, 1, 1)
        if len(self.bands) == NUM_BANDS:
            return moved.square().mean()
        inside = _cells(self.bands, *moved.shape[-2:], dtype=torch.int64, device=moved.device)
        return dct2(moved).flatten(-2)[..., inside].square().mean()


def _members(bands: tuple[int, ...], height: int, width: int) -> Tensor:
    """(h, w) bool: the DCT cells in these bands, numbered from 1."""
    return torch.isin(band_of_cell(height, width, NUM_BANDS), torch.tensor(bands) - 1)


@constant
def _cells(bands: tuple[int, ...], height: int, width: int) -> Tensor:
    """Row-major numbers of the cells in these bands."""
    return _members(bands, height, width).flatten().nonzero()[:, 0]
