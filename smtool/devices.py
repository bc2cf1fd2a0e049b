"""Moving tensors between devices without waiting, threads and precision of what computes, and the memory it took."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: str | torch.device) -> Tensor:
    """A tensor on a device. From the host to a GPU it goes by pinned memory: else the host waits for the steps queued there."""
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """For small tensors, whose threads wait for one another longer than they compute: on a busy machine, tens of times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions in float32 on a GPU too: the error of TF32, the default, exceeds differences of nearly equal images."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


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
