"""Rates of this machine's CPU, measured by short operations, and the time of counted kernels at these rates."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Final

import torch

from smtool.cost.counting import Count, Kernel, counting
from smtool.cost.cpu_probes import ELEMENTWISE, Call, Probe, attention, convolution, forget_operands, linear, product
from smtool.cost.cuda_autocast import cuda_autocast

_REPEATS: Final = 5
_KEPT: Final = 4
_PRODUCTS: Final = "mm"
_OTHERS: Final = "add"
_LIKE: Final = {"stack": "clone", "cat": "clone", "copy_": "clone"}
"""Operations at the rate of another one."""
_FORMATS: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Rate:
    """Seconds of an operation: per FLOP, plus per byte read or written."""

    per_flop: float
    per_byte: float

    def seconds(self, kernel: Kernel) -> float:
        return self.per_flop * kernel.flops + self.per_byte * kernel.bytes


@dataclass(frozen=True)
class CPU:
    """A CPU measured by `measure_cpu`. rates: of operations by PyTorch's name and dtype; start: seconds to start one."""

    rates: dict[tuple[str, torch.dtype], Rate]
    start: float
    threads: int

    @property
    def title(self) -> str:
        """What was measured, in words."""
        multiply, convolve, add = (self.rates[name, torch.float32] for name in (_PRODUCTS, "convolution", _OTHERS))
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return (
            f"{threads} of this CPU, measured now: matrix products {1e-9 / multiply.per_flop:,.0f} GFLOP/s, convolutions "
            f"{1e-9 / convolve.per_flop:,.0f} GFLOP/s, additions {1e-9 / add.per_byte:,.1f} GB/s"
        )

    def seconds(self, count: Count) -> float:
        """Predicted time: operations one after another."""
        return sum(self.start + self._rate(kernel).seconds(kernel) for kernel in count.kernels)

    def link_seconds(self, sent: float, gpus: int) -> float:
        """0, since one process sends nothing."""
        assert gpus == 1, "no prediction for several processes"
        return 0.0

    def _rate(self, kernel: Kernel) -> Rate:
        dtype = _FORMATS.get(kernel.unit, torch.float32)
        found = self.rates.get((_LIKE.get(kernel.name, kernel.name), dtype))
        return found or (self.rates[_PRODUCTS, dtype] if kernel.flops else self.rates[_OTHERS, torch.float32])


@cache
def measure_cpu(precision: torch.dtype | None, threads: int, clock: Callable[[], float] = time.perf_counter) -> CPU:
    """Measure the CPU's rates in one to two seconds, once in a process. precision: of autocast, None without; threads: those of
    PyTorch now; clock: returns seconds.

    Matrix products, with and without bias, convolutions and attention are measured at a large and at a narrow shape, from which
    follow seconds per FLOP and per byte. GroupNorm, LayerNorm, SiLU and GELU, forward and backward, and copies of transposed
    tensors have rates of their own. Every other operation has the rate of an addition of tensors that are not in the cache, or
    with FLOPs that of a matrix product; float64 counts as float32.
    """
    rates: dict[tuple[str, torch.dtype], Rate] = {}
    pairs = [(product(512), product(64)), (linear(256, 512), linear(2048, 64))]
    pairs += [(attention(4, 256, 64), attention(32, 64, 32))]
    pairs += [(convolution(128, 16, backward=on), convolution(16, 64, backward=on)) for on in (False, True)]
    for dtype in (torch.float32, *([precision] if precision else [])):
        for shapes in pairs:
            (large, slow), (narrow, fast) = (_measured(probe, dtype, clock) for probe in shapes)
            found = two_rates(large, slow, narrow, fast)
            rates |= {(kernel.name, dtype): found for kernel in large.kernels if kernel.flops}
    for probe in ELEMENTWISE:
        count, seconds = _measured(probe, torch.float32, clock)
        rates[count.kernels[0].name, torch.float32] = Rate(0.0, seconds / count.bytes)
    tiny, times = torch.zeros(8), 200
    forget_operands()
    start = _typical(lambda: [tiny.add(1) for _ in range(times)], clock) / times
    return CPU(rates, start, threads)


def two_rates(large: Kernel | Count, slow: float, narrow: Kernel | Count, fast: float) -> Rate:
    """The rates that give the seconds of two operations; where one of them would be negative, seconds per FLOP alone."""
    determinant = large.flops * narrow.bytes - narrow.flops * large.bytes
    per_flop = (slow * narrow.bytes - fast * large.bytes) / determinant
    per_byte = (large.flops * fast - narrow.flops * slow) / determinant
    if per_flop <= 0 or per_byte < 0:
        return Rate((slow + fast) / (large.flops + narrow.flops), 0.0)
    return Rate(per_flop, per_byte)


def _measured(probe: Probe, dtype: torch.dtype, clock: Callable[[], float]) -> tuple[Count, float]:
    """What a probe is counted as, and its seconds on this CPU."""
    call = probe("meta", dtype)
    with cuda_autocast(), counting() as count:
        call()
    return count, _typical(probe("cpu", dtype), clock)


def _typical(call: Call, clock: Callable[[], float]) -> float:
    """Median seconds of several calls: what else the machine does slows steps as it slows these.

    Some results are kept, as a step keeps its activations, so that a call writes to memory that is not in the cache.
    """
    kept = deque((call() for _ in range(_KEPT)), maxlen=_KEPT)
    seconds = []
    for _ in range(_REPEATS):
        kept.popleft()
        began = clock()
        kept.append(call())
        seconds.append(clock() - began)
    return median(seconds)
