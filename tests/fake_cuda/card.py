"""A GPU that is not there: runs code written for device="cuda" on a machine without one, and records what the host waits for.

Inside `card()`, tensors on "cuda" have a shape, a dtype and a device but no numbers (torch's FakeTensor), and tensors on the CPU
are real. An operation on tensors of different devices raises an error, as on a GPU. Numbers that are read from the GPU are made
up, so that the host's code runs on. Whatever makes the host wait for queued GPU work is recorded with the function of smtool that
asked for it: `.item()`, copies to the host, copies from pageable memory, results whose shape depends on numbers.

Not seen: waits inside of C++ code that is not an operator of PyTorch, hooks of tensors in backward passes, and errors of kernels.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import smtool
from smtool import storage

from .engine import backward, grad

PACKAGE = f"{Path(smtool.__file__).parent}/"


class _FakeMode(FakeTensorMode):
    """Without the wrapper that keeps PyTorch's compiler out, and that imports it."""

    __torch_dispatch__ = FakeTensorMode.__torch_dispatch__.__wrapped__      # type: ignore[attr-defined]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


FAKE = _FakeMode(allow_non_fake_inputs=True)
"""One for the whole process, because caches of constants keep its tensors."""
aten = torch.ops.aten
SHAPED_BY_NUMBERS = {
    aten.nonzero.default, aten.masked_select.default, aten._unique2.default, aten.unique_dim.default, aten.bincount.default,
    aten.repeat_interleave.Tensor,
}
CHECKED_BY_HOST = {aten.equal.default, aten._linalg_eigh.default, aten.linalg_cholesky_ex.default, aten._linalg_svd.default}
"""Operators whose CUDA code reads a number or an error code before it returns."""


class Card(TorchDispatchMode):
    """Sends each operation to the host or to the fake GPU.

    waits: (what, "file:function" of smtool) -> how often. doubles: functions that made float64 on the GPU of something else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.doubles: Counter[str] = Counter()
        self._pinned: dict[int, Tensor] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def pin(self, tensor: Tensor) -> Tensor:
        """Tensor.pin_memory; the copy is kept, so that its address is not used again."""
        copy = tensor.clone()
        self._pinned[copy.untyped_storage().data_ptr()] = copy
        return copy

    def wait(self, what: str) -> None:
        self.waits[what, _caller()] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        device = next((x for x in leaves if isinstance(x, torch.device)), None)
        on_card = any(isinstance(x, FakeTensor) for x in leaves)
        if not on_card and (device is None or device.type != "cuda"):
            return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            self.wait("item")
            return _made_up((), args[0].dtype).item()
        if func is aten._to_copy.default and device is not None and device.type == "cpu":
            if not kwargs.get("non_blocking"):      # then into pinned memory, which the host may read after an event
                self.wait("to host")
            return _made_up(args[0].shape, kwargs.get("dtype") or args[0].dtype)
        if func is aten.copy_.default and not isinstance(args[0], FakeTensor):
            self.wait("to host")
            return args[0].copy_(_made_up(args[1].shape, args[1].dtype))
        if func in (aten._to_copy.default, aten.copy_.default):
            source = args[0] if func is aten._to_copy.default else args[1]
            direct = kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2])
            if not isinstance(source, FakeTensor) and not (direct and self._is_pinned(source)):
                self.wait("from pageable memory")
        if func is aten.index.Tensor:
            args = (args[0], self._places(args[1]))
        elif func in (aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default):
            args = (args[0], self._places(args[1]), *args[2:])
        elif func in SHAPED_BY_NUMBERS or func in CHECKED_BY_HOST:
            self.wait(func._opname)
        if func is aten.equal.default:
            return True
        with FAKE:
            if func is aten.nonzero.default:      # as many rows as there can be
                return torch.empty(args[0].numel(), args[0].ndim, dtype=torch.int64, device=args[0].device)
            found = func(*args, **kwargs)
        if _has_double(tree_leaves(found)) and not _has_double(leaves):
            self.doubles[_caller()] += 1
        return found

    def _is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._pinned

    def _places(self, indices: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Indices by positions on the card. Masks, all of whose cells are taken as true, are counted by the host first and become
        positions along each of their dimensions; positions on the host are copied."""
        found: list[Tensor | None] = []
        for one in indices:
            if one is None or (isinstance(one, FakeTensor) and one.dtype not in (torch.bool, torch.uint8)):
                found.append(one)
            elif not isinstance(one, FakeTensor):
                self.wait("index from the host")
                found.append(one)
            else:
                self.wait("index by a mask")
                with FAKE:
                    found += [torch.empty(one.numel(), dtype=torch.int64, device=one.device) for _ in range(one.ndim)]
        return found


def _has_double(values: Sequence[Any]) -> bool:
    return any(isinstance(x, FakeTensor) and x.dtype == torch.float64 for x in values)


def _made_up(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Numbers that keep programs running: between 0.1 and 0.9, all different; or 1."""
    if dtype.is_floating_point:
        count = torch.Size(shape).numel()
        return torch.linspace(0.1, 0.9, max(1, count), dtype=torch.float64)[:count].reshape(shape).to(dtype)
    return torch.ones(shape, dtype=dtype)


def _caller() -> str:
    """The innermost function of smtool that is running, as "training/loop.py:optimize"."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return f"{frame.f_code.co_filename.removeprefix(PACKAGE)}:{frame.f_code.co_qualname.replace('.<locals>', '')}"
        frame = frame.f_back
    return "outside of smtool"


class _Stream:
    """A stream of the card. Waiting for one of its events waits for earlier work only."""

    def __init__(self, made: Card) -> None:
        self._card = made

    def record_event(self) -> "_Stream":
        return self

    def synchronize(self) -> None:
        self._card.wait("event")


class _OnCard:
    """An open safetensors file whose tensors are put on the card; the library itself would look for a driver."""

    def __init__(self, file: Any, device: str) -> None:
        self._file, self._device = file, device

    def get_tensor(self, name: str) -> Tensor:
        return self._file.get_tensor(name).to(self._device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def _safe_open(path: Any, framework: str, device: str = "cpu") -> Iterator[Any]:
    with _real_safe_open(path, framework=framework, device="cpu") as file:
        yield file if device == "cpu" else _OnCard(file, device)


_real_safe_open = storage.safe_open


def _swapped(one: Tensor, other: Tensor) -> None:
    """torch.utils.swap_tensors for nn.Module.to, which swaps fake parameters, but not those with weak references."""
    one.data = other


@contextmanager
def card() -> Iterator[Card]:
    """Run the block with a fake GPU; yields its record of waits."""
    torch._C._ensureCUDADeviceGuardSet()
    made = Card()
    patched: dict[str, Any] = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.is_initialized": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.set_device": lambda device: None,
        "torch.cuda.current_stream": lambda device=None: _Stream(made),
        "torch.cuda.synchronize": lambda device=None: made.wait("synchronize"),
        "torch.cuda.is_bf16_supported": lambda *args, **keys: True,
        "torch.cuda.get_device_name": lambda device=None: "fake GPU",
        "torch.cuda.max_memory_allocated": lambda device=None: 0,
        "torch.cuda.max_memory_reserved": lambda device=None: 0,
        "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "torch.utils.swap_tensors": _swapped,
        "torch.autograd.grad": grad,
        "torch.Tensor.backward": backward,
        "torch.Tensor.pin_memory": lambda tensor, device=None: made.pin(tensor),
        "torch._subclasses.fake_tensor.FakeTensorMode.avoid_device_init": True,
        "smtool.storage.safe_open": _safe_open,
    }
    lifts = torch._C._only_lift_cpu_tensors()
    with ExitStack() as stack:
        for name, value in patched.items():
            stack.enter_context(mock.patch(name, value))
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifts)
        torch._C._set_only_lift_cpu_tensors(True)      # torch.tensor(..., device="cuda") shows its copy to this mode
        yield stack.enter_context(made)
