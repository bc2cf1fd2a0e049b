"""The numbers that both trainers draw: generated from the name of a stream and the step, as in tests/parity, in float32."""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from smtool.randomness import Streams

PARITY = Path(__file__).parents[2] / "tests/parity"
sys.path.insert(0, str(PARITY))

from given import numbers  # noqa: E402


class GivenStreams(Streams):
    """Streams of smtool's loop."""

    def batch(self, name: str, shape: Sequence[int]) -> Tensor:
        return normal(tuple(shape), name, self.step)

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return uniform(tuple(shape), name, self.step)


@cache
def normal(shape: tuple[int, ...], name: str, step: int) -> Tensor:
    return numbers.normal(shape, name, step).float()


@cache
def uniform(shape: tuple[int, ...], name: str, step: int) -> Tensor:
    return numbers.uniform(shape, name, step).float()


def streams(seed: int, step: int, turn: str, *, batch: int, device: str = "cpu", **others: Any) -> GivenStreams:
    """Replaces `smtool.training.loop.streams`."""
    return GivenStreams(seed, step, turn, start=0, stop=batch, total=batch, device=device)
