"""Random numbers of a run, as functions of (seed, step, turn, name, position).

No generator state is kept between steps, so a resumed run draws the same numbers as an uninterrupted one. Numbers that belong
to a sample depend on its position in the global batch, not on ranks or micro-batches. All draws are made on the CPU, so they are
the same for every device.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Generator, Tensor

from smtool.devices import to_device

SCHEME = 2
"""How a new run draws the noise of its samples (`Normals.drawn`); a run keeps the scheme that it was started with."""

_BLOCK = 8192


def generator(*key: int | str) -> Generator:
    """A CPU generator seeded by a digest of the key; different keys give unrelated streams."""
    return Generator().manual_seed(int.from_bytes(_digest(key)[:8], "little"))


def _digest(key: Sequence[int | str]) -> bytes:
    return hashlib.sha256("\x1f".join(f"{type(part).__name__}:{part}" for part in key).encode()).digest()


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
class Normals:
    """Standard normal numbers of positions start:stop of a global batch of `total` samples, each of `shape`.

    scheme: 1 draws the whole batch from one `torch.Generator`, as all runs did that have no scheme in their checkpoints; 2 draws
    these positions alone, so that the work of a rank shrinks with the number of ranks.
    """

    seed: int
    step: int
    turn: str
    name: str
    shape: tuple[int, ...]
    start: int
    stop: int
    total: int
    scheme: int = SCHEME

    def drawn(self) -> Tensor:
        """The numbers, (stop - start, *shape), float32 on the CPU."""
        key = (self.seed, self.step, self.turn, "batch", self.name)
        if self.scheme == 1:
            return torch.randn((self.total, *self.shape), generator=generator(*key))[self.start : self.stop]
        size = math.prod(self.shape)
        numbers = _normal_sequence(_digest(key)[:16], self.start * size, self.stop * size)
        return torch.from_numpy(numbers).view(self.stop - self.start, *self.shape)


def _normal_sequence(key: bytes, first: int, last: int) -> np.ndarray:
    """Numbers first:last of the endless sequence of standard normal numbers of a key of 16 bytes, float32.

    The counter-based generator Philox4x64 can start anywhere. A block of 8192 numbers is the Box-Muller transform of 8192 words
    of 32 bits: the first half gives radii, the second half angles. Blocks are always computed whole, so that a number has the
    same bits in whatever range it is drawn. The largest number is 6.66.
    """
    begin, end = first // _BLOCK, -(-last // _BLOCK)
    words = np.random.Philox(key=np.frombuffer(key, np.uint64))
    words.advance(begin * (_BLOCK // 8))      # a count of Philox gives 8 words of 32 bits
    numbers = np.empty((end - begin, 2, _BLOCK // 2), np.float32)
    for block in numbers:
        radius, angle = words.random_raw(_BLOCK // 2).view(np.int32).reshape(2, -1)
        square = (radius & 0x7FFFFFFF).astype(np.float32)
        square *= np.float32(2.0**-31)
        square += np.float32(2.0**-32)      # uniform in (0, 1]
        np.log(square, out=square)
        square *= np.float32(-2)
        turned = angle.astype(np.float32)
        turned *= np.float32(math.pi * 2.0**-31)      # uniform in [-pi, pi]
        np.cos(turned, out=block[0])
        np.sin(turned, out=block[1])
        block *= np.sqrt(square, out=square)
    return numbers.reshape(-1)[first - begin * _BLOCK : last - begin * _BLOCK]


@dataclass(frozen=True)
class Streams:
    """Named random streams of one step.

    start:stop are the positions of this rank's micro-batch in the global batch of `total` samples. scheme: see `Normals`.
    supply: gives the numbers of a request, such as those that were drawn ahead of time.
    """

    seed: int
    step: int
    turn: str
    start: int
    stop: int
    total: int
    device: str = "cpu"
    scheme: int = SCHEME
    supply: Callable[[Normals], Tensor] = Normals.drawn

    def shared(self, name: str) -> Generator:
        """A CPU generator that is the same on every rank and in every micro-batch of the step."""
        return generator(self.seed, self.step, self.turn, "shared", name)

    def batch(self, name: str, shape: Sequence[int]) -> Tensor:
        """Standard normal noise, shape (B, ...) with B = stop - start, on the streams' device, float32."""
        self._check(name, shape)
        asked = Normals(
            self.seed, self.step, self.turn, name, tuple(shape[1:]), self.start, self.stop, self.total, self.scheme
        )
        return to_device(self.supply(asked), self.device)

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

    def _check(self, name: str, shape: Sequence[int]) -> None:
        if shape[0] != self.stop - self.start:
            raise ValueError(f"stream {name!r}: shape asks for {shape[0]} samples, but the slice is {self.start}:{self.stop}")

    def _sample(self, name: str, shape: Sequence[int]) -> Generator:
        """For few numbers per sample, which are drawn for the whole batch and sliced."""
        self._check(name, shape)
        return generator(self.seed, self.step, self.turn, "batch", name)

    def _sliced(self, drawn: Tensor) -> Tensor:
        return to_device(drawn[self.start : self.stop], self.device)


def streams(seed: int, step: int, turn: str, *, batch: int, device: str = "cpu", scheme: int = SCHEME) -> Streams:
    """The streams of one turn of a step ("autoencoder", "discriminator", "validation") over a global batch of `batch` samples."""
    return Streams(seed, step, turn, start=0, stop=batch, total=batch, device=device, scheme=scheme)
