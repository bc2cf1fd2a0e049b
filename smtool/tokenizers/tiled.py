"""Overlapping tiles: encode and decode images that do not fit into memory at once, piece by piece.

Layers that see the whole image (attention, GroupNorm) see one tile instead, and convolutions see the padding of a tile at its
border. So the result differs from that of the whole image, most where few pixels of a tile are left; overlaps are blended, so
that no edge shows. docs/how-to/large-images.md has measured differences.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from smtool.errors import RecipeError
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import Tokenizer, point_posterior

_OVERLAP = 4
"""A tile shares a quarter of its side with the next one, as in diffusers."""
_PROBE_CELLS = 4
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


class Tiled(Tokenizer):
    """A tokenizer that encodes and decodes tiles of `tile` pixels. An image that one tile covers is processed as a whole."""

    def __init__(self, whole: Tokenizer, tile: int) -> None:
        super().__init__()
        self.whole, self.tile = whole, tile
        self.network, self.config = whole.network, whole.config
        self.label, self.source, self.stats = whole.label, whole.source, whole.stats
        self.downsample, self.latent_channels = whole.downsample, whole.latent_channels
        self.deterministic, self.image_size = whole.deterministic, whole.image_size
        self.image_channels = whole.image_channels
        self.recipe, self.learned_from = whole.recipe, whole.learned_from

    @property
    def can_decode(self) -> bool:
        return self.whole.can_decode

    @property
    def architecture(self) -> str:
        return f"{self.whole.architecture}, in tiles of {self.tile} px"

    @property
    def digest(self) -> str:
        """Differs from that of the whole tokenizer, because the function differs."""
        return hashlib.sha256(f"{self.whole.digest} in tiles of {self.tile}".encode()).hexdigest()

    @property
    def device(self) -> torch.device:
        return self.whole.device

    def encode(self, images: Tensor) -> Posterior:
        if max(images.shape[-2:]) <= self.tile:
            return self.whole.encode(images)
        self.latent_shape(*images.shape[-2:])

        def moments(part: Tensor, top: int, left: int) -> Tensor:
            posterior = self.whole.encode(part)
            return posterior.mean if self.deterministic else torch.cat([posterior.mean, posterior.logvar], 1)

        found = blended(moments, images, tile=self.tile, step=self.downsample, scale=1 / self.downsample)
        return point_posterior(found) if self.deterministic else Posterior(*found.chunk(2, 1))

    def decode(self, latents: Tensor) -> Tensor:
        cells = self.tile // self.downsample
        if max(latents.shape[-2:]) <= cells:
            return self.whole.decode(latents)
        return blended(self.whole.decode_part, latents, tile=cells, step=1, scale=self.downsample)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return self.whole.latent_shape(height, width)


def tiled(tokenizer: Tokenizer, tile: int | None) -> Tokenizer:
    """The tokenizer in tiles of `tile` pixels; itself for None.

    Raises RecipeError for a tokenizer of a fixed image size, a tile that cells do not fill, and one below the receptive field.
    """
    if tile is None:
        return tokenizer
    if tokenizer.image_size is not None:
        raise RecipeError(
            f"--tile {tile}: {tokenizer.label} accepts only images of {tokenizer.image_size.words}, so it cannot encode tiles.",
            hint="Leave --tile out.",
        )
    if tile < 1 or tile % tokenizer.downsample:
        raise RecipeError(
            f"--tile {tile}: a tile of {tokenizer.label} is a multiple of its downsampling factor {tokenizer.downsample}.",
            hint=f"Try --tile {max(1, tile // tokenizer.downsample) * tokenizer.downsample}.",
        )
    if tile < (field := receptive_field(tokenizer)):
        fits = math.ceil(field / (8 * tokenizer.downsample)) * 8 * tokenizer.downsample
        raise RecipeError(
            f"--tile {tile} is smaller than the receptive field of {tokenizer.label}, {field} px: every pixel of a tile would "
            "depend on its border.",
            hint=f"Try --tile {fits} or more.",
        )
    return Tiled(tokenizer, tile)


@torch.no_grad()
def receptive_field(tokenizer: Tokenizer) -> int:
    """Side in pixels of the square that a value of encoder or decoder depends on through convolutions; the larger of the two.

    It is the sum over all convolutions that run, so with parallel branches it is an upper bound. Attention and normalization,
    which depend on the whole image, are not counted. One cell for plain arithmetic.
    """
    side = _PROBE_CELLS * tokenizer.downsample
    image = torch.zeros(1, tokenizer.image_channels, side, side, device=tokenizer.device)
    with _reach_of_convolutions(tokenizer.network, side) as reach:
        latents = tokenizer.encode(image).mode()
        encoder = sum(reach)
        reach.clear()
        if tokenizer.can_decode:
            tokenizer.decode(latents)
        return max(tokenizer.downsample, math.ceil(2 * max(encoder, sum(reach))) + 1)


@contextmanager
def _reach_of_convolutions(network: nn.Module | None, side: int) -> Iterator[list[float]]:
    """Within the block, the list gets the reach of every convolution that runs, in pixels of an image of this side."""
    reach: list[float] = []

    def see(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, _CONVOLUTIONS)
        upward = isinstance(layer, nn.ConvTranspose2d)
        grid = output.shape[-1] if upward else output.shape[-1] * layer.stride[-1]
        reach.append(layer.dilation[-1] * (layer.kernel_size[-1] - 1) / 2 * side / grid)

    layers = [] if network is None else [layer for layer in network.modules() if isinstance(layer, _CONVOLUTIONS)]
    hooks = [layer.register_forward_hook(see) for layer in layers]
    try:
        yield reach
    finally:
        for hook in hooks:
            hook.remove()


def blended(function: Callable[[Tensor, int, int], Tensor], x: Tensor, *, tile: int, step: int, scale: float) -> Tensor:
    """Apply a function to overlapping tiles of x (B, C, H, W) and blend the results (B, C', H scale, W scale).

    function: gets a tile, and the row and column of x at which it begins. tile: side in cells of x, a multiple of `step`, as are
    H, W and the positions of tiles. The weight of a tile rises smoothly over an overlap, and the weights of all tiles add up
    to 1. One tile's result is in memory beside the blended one.
    """
    rows, columns = (tile_starts(length, tile, step) for length in x.shape[-2:])
    height, width = (round(length * scale) for length in x.shape[-2:])
    total: Tensor | None = None
    for row, down in zip(rows, _weights(rows, tile, x.shape[-2], scale), strict=True):
        for column, right in zip(columns, _weights(columns, tile, x.shape[-1], scale), strict=True):
            part = function(x[..., row : row + tile, column : column + tile], row, column)
            if total is None:
                total = part.new_zeros(*part.shape[:2], height, width)
            top, left = round(row * scale), round(column * scale)
            weight = (down[:, None] * right).to(part)
            total[..., top : top + part.shape[-2], left : left + part.shape[-1]] += weight * part
    assert total is not None
    return total


def tile_starts(length: int, tile: int, step: int) -> list[int]:
    """First positions of the fewest tiles that cover a side and overlap by a quarter or more; evenly spaced multiples of step."""
    if length <= tile:
        return [0]
    stride = max(step, (tile - tile // _OVERLAP) // step * step)
    count = 1 + math.ceil((length - tile) / stride)
    return [round(index * (length - tile) / (count - 1) / step) * step for index in range(count)]


def _weights(starts: list[int], tile: int, length: int, scale: float) -> list[Tensor]:
    """Weights of every tile along one side; at every position they add up to 1.

    Each tile rises over its overlap with the tile before it, and that tile falls by as much; where three overlap, their weights
    are divided by the sum.
    """
    size, places = round(min(tile, length) * scale), [round(start * scale) for start in starts]
    weights, total = [torch.ones(size) for _ in starts], torch.zeros(round(length * scale))
    for index, (before, after) in enumerate(pairwise(places), start=1):
        overlap = size - (after - before)
        rise = torch.sin(torch.pi / 2 * (torch.arange(overlap) + 0.5) / overlap).square()
        weights[index][:overlap] *= rise
        weights[index - 1][-overlap:] *= 1 - rise
    for place, weight in zip(places, weights, strict=True):
        total[place : place + size] += weight
    return [weight / total[place : place + size] for place, weight in zip(places, weights, strict=True)]
