"""Seconds of calls on a device, its peak memory, and the rate of one large matrix product."""

import gc
import time
from collections.abc import Callable

import torch

_WARMUP, _CALLS = 3, 10


def wait(device: torch.device | str) -> None:
    """Until the device has done what was asked of it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object], device: torch.device | str, *, warmup: int = _WARMUP, calls: int = _CALLS) -> float:
    """Mean seconds of a call, of some that are queued one after another and waited for at the end."""
    for _ in range(warmup):
        call()
    wait(device)
    began = time.perf_counter()
    for _ in range(calls):
        call()
    wait(device)
    return (time.perf_counter() - began) / calls


def product_rate(device: str, *, side: int) -> float:
    """FLOP/s of a product of two square matrices of random bf16 numbers (products of zeros are faster)."""
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: torch.mm(left, right), device)


def forget_peak_memory(device: str) -> None:
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> float | None:
    """Bytes of tensors on a GPU at their peak since `forget_peak_memory`."""
    return float(torch.cuda.max_memory_allocated()) if torch.device(device).type == "cuda" else None
