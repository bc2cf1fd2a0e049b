"""Decoding Spectrum Matching (arXiv 2603.14645, section 4; released-code.md#dsm).

It trains the decoder to map each frequency band of the latents to the same band of the image.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from smtool.randomness import Streams
from smtool.regularizers.base import Pair, Regularizer, RegularizerConfig, Shapes
from smtool.spectrum import block_low_pass, fitted_low_pass

IMAGE_BLOCK = 8
NumImages = Annotated[int, Field(ge=1)]


class DSM(RegularizerConfig):
    """Decode low-passed latents to equally low-passed images.

    The encoder input is never low-passed. With the default rows_removed, which contain 0, a quarter of the steps train the plain
    reconstruction.
    """

    rows_removed: tuple[int, ...] = Field(
        (0, 8, 10, 12), min_length=1, description="numbers of DCT anti-diagonals to set to 0, highest first; one is drawn"
    )
    block: int | Literal["fit"] = Field(
        8, description='side of the DCT blocks in pixels and in latent cells; "fit": 8, but for smaller latents their side'
    )
    shape: Literal["triangle", "square"] = Field(
        "triangle", description="kept coefficients: u + v below a limit, or both u and v below one"
    )
    per: Literal["batch", "sample"] | NumImages = Field(
        "batch",
        description="images that share a cutoff: the global batch, one sample, or N consecutive (released code: those of a GPU)",
    )

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "DecodingSpectrumMatching":
        return DecodingSpectrumMatching(self.rows_removed, self.block, self.shape, self.per)

    def problems(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        block = IMAGE_BLOCK if self.block == "fit" else self.block
        most = 2 * block - 2 if self.shape == "triangle" else block - 1
        for rows in self.rows_removed:
            if not 0 <= rows <= most:
                yield "rows_removed", f"must be between 0 and {most} for a {self.shape} mask of block {block}, but holds {rows}"
        if block < 2:
            yield "block", f'must be at least 2, or "fit", but is {block}'
            return
        yield from _undivided("image", shapes.images[-2:], block)
        latent = shapes.latents[-2:]
        yield from _undivided("latent", latent, min(8, *latent) if self.block == "fit" else block)


def _undivided(name: str, sides: tuple[int, ...], block: int) -> Iterator[tuple[str, str]]:
    height, width = sides
    if height % block or width % block:
        fit = ' use block = "fit", or' if min(sides) < block else " use"
        yield "block", f"the {name} is {height}x{width}, which blocks of {block} do not fill;{fit} an image size that fits"


class DecodingSpectrumMatching(Regularizer):
    def __init__(
        self,
        rows_removed: tuple[int, ...],
        block: int | Literal["fit"],
        shape: Literal["triangle", "square"],
        per: Literal["batch", "sample"] | int,
    ) -> None:
        super().__init__()
        self.rows_removed = rows_removed
        self.block = block
        self.shape = shape
        self.per = per

    def draw(self, streams: Streams, shapes: Shapes) -> int | Tensor:
        """Rows to remove: one number for the global batch, or (B,) int64, equal within each group of `per` consecutive images."""
        choices = torch.tensor(self.rows_removed)
        if self.per == "batch":
            return int(choices[torch.randint(len(choices), (), generator=streams.shared("dsm"))])
        group = 1 if self.per == "sample" else self.per
        rows = choices[streams.group_integers("dsm", len(choices), (shapes.images[0],), group=group)]
        return int(rows[0]) if group > 1 and bool((rows == rows[0]).all()) else rows

    def before_decode(self, pairs: list[Pair], draw: int | Tensor) -> list[Pair]:
        if isinstance(draw, int) and draw == 0:
            return pairs
        return [self._low_passed(pair, draw) for pair in pairs]

    def _low_passed(self, pair: Pair, rows: int | Tensor) -> Pair:
        if self.block == "fit":
            images = block_low_pass(pair.images, rows, block=IMAGE_BLOCK, shape=self.shape)
            return Pair(images, fitted_low_pass(pair.latents, rows, shape=self.shape), pair.weight)
        images = block_low_pass(pair.images, rows, block=self.block, shape=self.shape)
        return Pair(images, block_low_pass(pair.latents, rows, block=self.block, shape=self.shape), pair.weight)
