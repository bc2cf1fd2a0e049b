"""Structured latents of DC-AE 1.5 (arXiv 2508.00413; dc-ai-projects/DC-Gen): whole images from the first channels alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from smtool.randomness import Streams
from smtool.regularizers.base import Pair, Regularizer, RegularizerConfig, Shapes

Length = Annotated[int, Field(ge=1)]


class ChannelPrefix(RegularizerConfig):
    """Decode the whole image from the first c' latent channels, where c' is drawn from a list.

    One draw holds for all images of the batch. The channels behind the prefix are 0, which equals cutting the convolutions beside
    the latent to c' channels. Channels are cut after all other changes of the latents.
    """

    lengths: tuple[Length, ...] = Field(
        min_length=1, description="prefix lengths c', of which one is drawn uniformly; the longest must be latent_channels"
    )
    per_step: int = Field(1, ge=1, le=64, description="prefixes in every step; their reconstruction losses are averaged")
    always: Literal["none", "longest", "both-ends"] = Field(
        "none", description='in every step, while others are drawn: the longest prefix, or ("both-ends") longest and shortest'
    )

    def problems(self, shapes: Shapes) -> Iterator[tuple[str, str]]:
        channels, longest = shapes.latents[1], max(self.lengths)
        if longest > channels:
            yield "lengths", f"has {longest}, but there are {channels} latent channels; use numbers up to {channels}"
        elif longest < channels:
            yield "lengths", f"ends at {longest}, so channels {longest + 1} to {channels} would never train; add {channels}"
        if len(set(self.lengths)) < len(self.lengths):
            yield "lengths", "has a number twice; use different numbers"
        if len(fixed(self.lengths, self.always)) > self.per_step:
            yield "per_step", f'must be at least {len(fixed(self.lengths, self.always))} with always = "{self.always}"'

    def build(self, shapes: Shapes, weights_dir: Path | None) -> "PrefixedLatents":
        return PrefixedLatents(self.lengths, self.per_step, self.always)


class PrefixedLatents(Regularizer):
    """Replaces each pair by one for every prefix of the step, with a share of its weight."""

    def __init__(self, lengths: tuple[int, ...], per_step: int, always: Literal["none", "longest", "both-ends"]) -> None:
        super().__init__()
        self.lengths = lengths
        self.fixed = fixed(lengths, always)
        self.drawn = per_step - len(self.fixed)

    def draw(self, streams: Streams, shapes: Shapes) -> tuple[int, ...]:
        numbers = torch.randint(len(self.lengths), (self.drawn,), generator=streams.shared("channel-prefix"))
        return (*self.fixed, *(self.lengths[number] for number in numbers.tolist()))

    def before_decode(self, pairs: list[Pair], draw: tuple[int, ...]) -> list[Pair]:
        return [Pair(one.images, prefix(one.latents, length), one.weight / len(draw)) for length in draw for one in pairs]


def fixed(lengths: tuple[int, ...], always: Literal["none", "longest", "both-ends"]) -> tuple[int, ...]:
    """The lengths that are in every step."""
    ends = {"none": (), "longest": (max(lengths),), "both-ends": (max(lengths), min(lengths))}[always]
    return tuple(dict.fromkeys(ends))


def prefix(latents: Tensor, length: int) -> Tensor:
    """(B, C, h, w) with 0 in all channels behind the first `length`."""
    if length == latents.shape[1]:
        return latents
    return torch.cat([latents[:, :length], torch.zeros_like(latents[:, length:])], dim=1)
