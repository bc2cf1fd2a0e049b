"""Counts the operations of a block of code on meta tensors: FLOPs, bytes, kernels, and the memory of the tensors it makes."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_ATEN = torch.ops.aten
_CONVOLUTIONS = {_ATEN.convolution, _ATEN._convolution, _ATEN.convolution_backward}
_NO_KERNEL = {
    _ATEN.empty, _ATEN.empty_like, _ATEN.empty_strided, _ATEN.new_empty, _ATEN.new_empty_strided, _ATEN.detach, _ATEN.alias,
    _ATEN.lift_fresh, _ATEN._local_scalar_dense,
}  # fmt: skip
_WRITE_ONLY = {_ATEN.fill_, _ATEN.zero_, _ATEN.copy_}
"""In-place operations that do not read what they overwrite."""


@dataclass(frozen=True)
class Kernel:
    """One operation. unit: where its FLOPs run (bf16, fp16, tf32, fp32, fp64; "" without FLOPs); bytes: read and written;
    name: of the operation in PyTorch, "" for several that are counted together."""

    unit: str
    flops: int
    bytes: int
    name: str = ""


@dataclass
class Count:
    """Operations of a block of code, and the peak bytes of the tensors that it makes, without gradients of parameters."""

    kernels: list[Kernel] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def flops(self) -> int:
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def bytes(self) -> int:
        return sum(kernel.bytes for kernel in self.kernels)

    def flops_by_unit(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for kernel in self.kernels:
            if kernel.flops:
                found[kernel.unit] = found.get(kernel.unit, 0) + kernel.flops
        return found


@contextmanager
def counting(module: nn.Module | None = None) -> Iterator[Count]:
    """Count what the block does with meta tensors; operations on real tensors are the host's and do not count.

    module: gradients that arrive at its parameters leave the memory that is counted. FLOPs are those of PyTorch's FLOP counter
    (`torch.utils.flop_counter`): matrix products, convolutions and attention, 2 for each multiplication with addition, backward
    passes included. Every operation counts as one kernel that reads each input and writes each output once. Views
    cost nothing. Blocks inside of `smtool.cost.compiled.as_compiled` count with the kernels of their compiled graphs.
    """
    counter = _Counter()
    hooks = [
        parameter.register_post_accumulate_grad_hook(counter.forget_gradient)
        for parameter in (() if module is None else module.parameters()) if parameter.requires_grad
    ]  # fmt: skip
    try:
        _running.append(counter)
        with counter:
            yield counter.count
    finally:
        _running.remove(counter)
        for hook in hooks:
            hook.remove()


def add_kernels(kernels: Sequence[Kernel], transient_bytes: int) -> None:
    """Add kernels that are not run to the innermost `counting`, and the memory that they take meanwhile beside their inputs and
    outputs."""
    counter = _running[-1]
    counter.count.kernels += kernels
    counter.count.peak_bytes = max(counter.count.peak_bytes, counter.total + transient_bytes)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = Count()
        self._alive: dict[int, int] = {}      # storage -> bytes
        self.total = 0
        self._trues: dict[int, int] = {}      # storage of a mask -> number of its true cells

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False      # else PyTorch imports its compiler, which takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        args = self._numbered(func, args)
        out = func(*args, **named)
        inputs = [x for x in tree_leaves((args, named)) if isinstance(x, Tensor)]
        outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.is_meta]
        if not outputs:
            return out
        given = {x.untyped_storage()._cdata for x in inputs}
        for x in outputs:
            if x.untyped_storage()._cdata not in given:
                self._remember(x)
        if func is _ATEN._to_copy.default and not inputs[0].is_meta:      # from host to device
            if inputs[0].dtype == torch.bool:
                self._trues[outputs[0].untyped_storage()._cdata] = int(inputs[0].sum())
            return out
        packet = func._overloadpacket
        if packet not in _NO_KERNEL:
            self._add(packet, func, args, named, out, [x for x in inputs if x.is_meta], outputs)
        return out

    def _add(
        self, packet: Any, func: Any, args: Sequence[Any], named: Mapping[str, Any], out: Any, inputs: list[Tensor],
        outputs: list[Tensor],
    ) -> None:
        before = {x.untyped_storage()._cdata for x in inputs}
        mutable = func._schema.is_mutable
        if not mutable and all(x.untyped_storage()._cdata in before for x in outputs):
            return      # a view
        read = _distinct(inputs)
        if packet in _WRITE_ONLY:
            read = _distinct(inputs[1:])
        flops = int(flop_registry[packet](*args, **named, out_val=out)) if packet in flop_registry else 0
        unit = unit_of(packet, inputs) if flops else ""
        self.count.kernels.append(Kernel(unit, flops, read + _distinct(outputs), packet.__name__))

    def _numbered(self, func: Any, args: Sequence[Any]) -> Sequence[Any]:
        """Arguments of indexing with masks replaced by as many places as the mask has true cells; unknown masks: all cells."""
        if func is not _ATEN.index.Tensor:
            return args
        places: list[Any] = []
        for index in args[1]:
            if isinstance(index, Tensor) and index.is_meta and index.dtype == torch.bool:
                number = self._trues.get(index.untyped_storage()._cdata, index.numel())
                places += [torch.empty(number, dtype=torch.int64, device="meta") for _ in range(index.ndim)]
            else:
                places.append(index)
        return (args[0], places)

    def _remember(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        self._alive[key] = storage.nbytes()
        self.total += storage.nbytes()
        self.count.peak_bytes = max(self.count.peak_bytes, self.total)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.total -= self._alive.pop(key, 0)
        self._trues.pop(key, None)

    def forget_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.total -= self._alive.get(key := parameter.grad.untyped_storage()._cdata, 0)
            self._alive[key] = 0


_running: list[_Counter] = []


def _distinct(tensors: Sequence[Tensor]) -> int:
    """Bytes of tensors, each once; of an expanded one, those of its memory."""
    sizes = {id(x): min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) for x in tensors}
    return sum(sizes.values())


def unit_of(packet: Any, inputs: Sequence[Tensor]) -> str:
    dtype = next(x.dtype for x in inputs if x.is_floating_point())
    if dtype == torch.float32:      # PyTorch's defaults: TF32 for convolutions, not for matrix products
        return "tf32" if packet in _CONVOLUTIONS else "fp32"
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp64")

