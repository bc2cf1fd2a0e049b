"""What devices can do, device transfers, thread count and convolution precision of a block of code, and peak memory."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: str | torch.device) -> Tensor:
    """Return the tensor on `device`. A copy from host to GPU uses pinned memory, so that it does not wait for queued GPU work."""
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class ReadLater:
    """A tensor on its way to the host. `value` waits for the copy and the GPU work before it, not for work queued since then.

    From other devices than CUDA the copy is made at once.
    """

    def __init__(self, tensor: Tensor) -> None:
        on_gpu = tensor.device.type == "cuda"
        self._copy = tensor.to("cpu", non_blocking=on_gpu)      # from a GPU into pinned memory
        self._copied = torch.cuda.current_stream(tensor.device).record_event() if on_gpu else None

    @property
    def value(self) -> Tensor:
        if self._copied is not None:
            self._copied.synchronize()
        return self._copy


def is_autocast_on(device: torch.device) -> bool:
    """Whether autocast is on for tensors on the device; those on the meta device have the CPU's switch."""
    return torch.is_autocast_enabled("cpu" if device.type == "meta" else device.type)


_meta_is_cpu: ContextVar[bool] = ContextVar("meta_is_cpu", default=False)


@contextmanager
def meta_as_cpu() -> Iterator[None]:
    """Within the block, the meta device stands for a CPU, elsewhere for a GPU: what runs there is predicted."""
    token = _meta_is_cpu.set(True)
    try:
        yield
    finally:
        _meta_is_cpu.reset(token)


def stands_for_gpu(device: str | torch.device) -> bool:
    """Whether the device is the meta device, and not within `meta_as_cpu`."""
    return torch.device(device).type == "meta" and not _meta_is_cpu.get()


_WIDE = 192 * 192


def image_layout(device: str | torch.device, size: Sequence[int]) -> torch.memory_format:
    """The layout in which autoencoders train fastest on images of this (height, width).

    channels_last on a GPU, and on a CPU for large images: it saves 5 % of a step at 256 px, and costs 4 % at 128, 8 % at 64.
    """
    on_gpu = torch.device(device).type == "cuda" or stands_for_gpu(device)
    return torch.channels_last if on_gpu or size[0] * size[1] >= _WIDE else torch.contiguous_format


def best_device() -> str:
    """"cuda" with an NVIDIA or AMD GPU, else "mps" with an Apple GPU, else "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def has_float64(device: str | torch.device) -> bool:
    """Whether the device computes in float64. Apple GPUs do not: PyTorch raises an error for such a tensor on "mps"."""
    return torch.device(device).type != "mps"


def float64_device(device: str | torch.device) -> torch.device:
    """Where float64 is computed for this device: there, or on the CPU."""
    return torch.device(device) if has_float64(device) else torch.device("cpu")


def in_float64(x: Tensor) -> Tensor:
    """x in float64, on its device if that has float64, else on the CPU. `.to(x)` brings a result back."""
    return x.to(float64_device(x.device)).double()


def has_bf16(device: str) -> bool:
    """Whether the device is a GPU that computes in bfloat16 itself."""
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU or the machine has too little memory. PyTorch raises a RuntimeError for the latter."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def reason_of(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block on one thread: for small tensors, thread synchronization costs more than the computation."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Run the block's GPU convolutions in full float32: errors of TF32, the default, exceed differences of near-equal images."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


@contextmanager
def gpu_algorithms(device: str, *, deterministic: bool, same_shapes: bool) -> Iterator[None]:
    """Choose a GPU's algorithms within the block; no effect on a CPU.

    deterministic: only algorithms that give the same bits in every run; an operator without one raises RuntimeError. Otherwise,
    with same_shapes (batches have one of a few shapes), cuDNN measures its algorithms for each new shape and keeps the fastest,
    which may be another one in the next run.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    before = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")      # without it, matrix products would raise
    _set_algorithms(deterministic, same_shapes and not deterministic, deterministic)
    try:
        yield
    finally:
        _set_algorithms(*before)


def _set_algorithms(deterministic: bool, benchmark: bool, cudnn_deterministic: bool) -> None:
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.deterministic = cudnn_deterministic


def peak_memory_mb(device: str) -> dict[str, int]:
    """Peak memory in MB: of this process (`process`) and of its tensors on a GPU (`gpu`). {} if the system does not report it."""
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
