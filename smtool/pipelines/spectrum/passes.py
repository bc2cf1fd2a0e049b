"""What a report's network passes cost: every encode and decode of a codec, counted and timed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from smtool.networks.tokenizer import Tokenizer

Passed = TypeVar("Passed")


@dataclass
class Passes:
    """Images that went through a network, and the seconds that it took."""

    images: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {"images": self.images, "seconds": round(self.seconds, 3)}


class PassMeter:
    """Stands between a codec and its callers from now on; it changes no number."""

    def __init__(self, codec: Tokenizer, device: str) -> None:
        self._wait = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else _nothing
        self.encode, self.decode = Passes(), Passes()
        self._report: Callable[[int], None] = lambda done: None
        for name, passes in (("encode", self.encode), ("decode", self.decode)):
            setattr(codec, name, self._metered(getattr(codec, name), passes))

    @property
    def seconds(self) -> float:
        return self.encode.seconds + self.decode.seconds

    @contextmanager
    def reporting(self, report: Callable[[int], None]) -> Iterator[None]:
        """Within this block, say after every pass how many images the codec has decoded in it."""
        before, former = self.decode.images, self._report
        self._report = lambda done: report(done - before)
        try:
            yield
        finally:
            self._report = former

    def _metered(self, network: Callable[[Tensor], Passed], passes: Passes) -> Callable[[Tensor], Passed]:
        def run(x: Tensor) -> Passed:
            self._wait()
            start = time.perf_counter()
            y = network(x)
            self._wait()
            passes.images += len(x)
            passes.seconds += time.perf_counter() - start
            self._report(self.decode.images)
            return y

        return run


def peak_memory_mb(device: str) -> dict[str, int]:
    """The most memory this process has held, in MB; on a GPU also what its tensors held there. {} where it cannot be asked."""
    found = {}
    try:
        import resource
        import sys

        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found["process"] = round(kilobytes / (2**20 if sys.platform == "darwin" else 2**10))
    except ImportError:      # not a Unix
        pass
    if device.startswith("cuda"):
        found["gpu"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    return found


def _nothing() -> None:
    pass
