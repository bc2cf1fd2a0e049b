"""Random numbers of a run, as functions of (seed, step, turn, name, position).

No generator state is kept between steps, so a resumed run draws the same numbers as an uninterrupted one. Numbers that belong
to a sample are drawn for the whole global batch and sliced by position, so they do not depend on ranks or micro-batches.
All draws are made on the CPU, so they are the same for every device.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from smtool.devices import to_device


def generator(*key: int | str) -> Generator:
    """A CPU generator seeded by a digest of the key; different keys give unrelated streams."""
    digest = hashlib.sha256("\x1f".join(f"{type(part).__name__}:{part}" for part in key).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def permutation(length: int, *key: int | str) -> Tensor:
    """A random order of range(length), (length,) int64, fixed by the key."""
    return torch.randperm(length, generator=generator("permutation", *key))


def noise_of(generators: Iterable[Generator], shape: Sequence[int]) -> Tensor:
    """Standard normal noise (N, *shape), float32 on the CPU: one draw from each of the N generators."""
    return torch.stack([torch.randn(tuple(shape), generator=drawn) for drawn in generators])


@contextmanager
def initializing(*key: int | str) -> Iterator[None]:
    """Seed torch's global generator, which initializes layers, by the key within the block, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(*key).initial_seed())
        yield


@dataclass(frozen=True)
class Streams:
    """Named random streams of one step.

    start:stop are the positions of this rank's micro-batch in the global batch of `total` samples.
    """

    seed: int
    step: int
    turn: str
    start: int
    stop: int
    total: int
    device: str = "cpu"

    def shared(self, name: str) -> Generator:
        """A CPU generator that is the same on every rank and in every micro-batch of the step."""
        return generator(self.seed, self.step, self.turn, "shared", name)

    def batch(self, name: str, shape: Sequence[int]) -> Tensor:
        """Standard normal noise, shape (B, ...) with B = stop - start, on the streams' device, float32."""
        return self._sliced(torch.randn((self.total, *shape[1:]), generator=self._sample(name, shape)))

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), shape (B, ...), on the streams' device, float32."""
        return self._sliced(torch.rand((self.total, *shape[1:]), generator=self._sample(name, shape)))

    def integers(self, name: str, high: int, shape: Sequence[int]) -> Tensor:
        """Uniform integers in [0, high), shape (B, ...), on the streams' device, int64."""
        return self._sliced(torch.randint(high, (self.total, *shape[1:]), generator=self._sample(name, shape)))

    def group_integers(self, name: str, high: int, shape: Sequence[int], *, group: int) -> Tensor:
        """Uniform integers in [0, high), shape (B, ...), int64 on the CPU: one draw for every `group` samples in a row.

        Sample i of the global batch has draw i // group, on whatever rank and in whatever micro-batch it is.
        """
        drawn = torch.randint(high, (-(-self.total // group), *shape[1:]), generator=self._sample(name, shape))
        return drawn[torch.arange(self.start, self.stop) // group]

    def at(self, start: int, stop: int) -> "Streams":
        """The streams of another slice of the same global batch."""
        return replace(self, start=start, stop=stop)

    def of_turn(self, turn: str) -> "Streams":
        """The streams of another turn of the same step, at the same slice."""
        return replace(self, turn=turn)

    def _sample(self, name: str, shape: Sequence[int]) -> Generator:
        if shape[0] != self.stop - self.start:
            raise ValueError(f"stream {name!r}: shape asks for {shape[0]} samples, but the slice is {self.start}:{self.stop}")
        return generator(self.seed, self.step, self.turn, "batch", name)

    def _sliced(self, drawn: Tensor) -> Tensor:
        return to_device(drawn[self.start : self.stop], self.device)


def streams(seed: int, step: int, turn: str, *, batch: int, device: str = "cpu") -> Streams:
    """The streams of one turn of a step ("autoencoder", "discriminator", "validation") over a global batch of `batch` samples."""
    return Streams(seed, step, turn, start=0, stop=batch, total=batch, device=device)
