"""The kernels that PyTorch's compiler, Inductor, makes of a graph for a GPU. The GPU need not be there.

Inductor decides on a graph of operations which of them one kernel computes, before it writes any code; that is done here, with
the numbers of an H100 where it asks for a GPU. Its own estimate gives the bytes of a kernel: each buffer that it reads or writes
counts once, at most with its size (`BaseSchedulerNode.get_read_write_buffers_sizes`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx
from torch._dynamo.device_interface import CudaInterface
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.compile_fx import _recursive_post_grad_passes
from torch._inductor.debug import DebugContext
from torch._inductor.graph import GraphLowering
from torch._inductor.ir import Layout
from torch._inductor.runtime.hints import DeviceProperties
from torch._inductor.scheduler import ExternKernelSchedulerNode
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_map, tree_map_only
from torch.utils.flop_counter import flop_registry

from smtool.cost.counting import Kernel, unit_of

_GPU = torch.device("cuda", 0)
_H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132, warp_size=32, regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048, max_threads_per_block=1024, total_memory=80 << 30, L2_cache_size=50 << 20,
    shared_memory_per_block=48 << 10, shared_memory_per_block_optin=227 << 10, shared_memory_per_multiprocessor=228 << 10,
    is_integrated=0, gcnArchName="",
)  # fmt: skip


@dataclass(frozen=True)
class Kernels:
    """Of a compiled graph. transient_bytes: the most that buffers take which are neither inputs nor outputs."""

    kernels: list[Kernel]
    transient_bytes: int


def partition(joint: fx.GraphModule, inputs: Sequence[Any], **options: Any) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Cut a graph of forward and backward pass, for AOTAutograd, as Inductor does: cheap values are computed again."""
    _on_gpu(joint)
    found: tuple[fx.GraphModule, fx.GraphModule] = min_cut_rematerialization_partition(joint, inputs, **options)
    return found


def kernels_of(graph: fx.GraphModule, *, backward: bool) -> Kernels:
    """Lower a graph of ATen operations. Changes the graph."""
    inputs = _on_gpu(graph)
    with _gpu():
        with V.set_fake_mode(inputs[0].fake_mode):
            _recursive_post_grad_passes(graph, False)
        flops = _flops(graph)
        lowering = GraphLowering(graph, example_inputs=inputs, is_backward=backward)
        with (
            V.set_fake_mode(inputs[0].fake_mode), V.set_graph_handler(lowering), V.set_extern_kernel_nodes([]),
            V.set_debug_handler(DebugContext()),
        ):  # fmt: skip
            lowering.run(*inputs)
            lowering.init_wrapper_code()
            lowering._update_scheduler()
            nodes = lowering.scheduler.nodes
            kernels = [kernel for node in nodes if (kernel := _kernel(node, flops)).bytes]
            return Kernels([*kernels, *flops.values()], _transient(lowering, nodes))      # the last are inside of written kernels


def _on_gpu(graph: fx.GraphModule) -> list[FakeTensor]:
    """Put all values of a graph on the GPU, and return the inputs."""

    def moved(value: object) -> object:
        if not isinstance(value, FakeTensor) or value.device == _GPU:
            return value
        with value.fake_mode:
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=_GPU)

    for node in graph.graph.nodes:
        if "val" in node.meta:
            node.meta["val"] = tree_map(moved, node.meta["val"])
        node.args, node.kwargs = tree_map_only(torch.device, lambda device: _GPU, (node.args, node.kwargs))
    return [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]


def _flops(graph: fx.GraphModule) -> dict[str, Kernel]:
    """Name of a node -> kernel without bytes, for the operations with FLOPs."""
    found = {}
    for node in graph.graph.nodes:
        packet: Any = getattr(node.target, "_overloadpacket", None)
        if packet in flop_registry:
            args, kwargs = tree_map_only(fx.Node, lambda given: given.meta["val"], (node.args, node.kwargs))
            unit = unit_of(packet, [value for value in args if isinstance(value, Tensor)])
            flops = int(flop_registry[packet](*args, **kwargs, out_val=node.meta["val"]))
            found[node.name] = Kernel(unit, flops, 0, packet.__name__)
    return found


def _kernel(node: Any, flops: dict[str, Kernel]) -> Kernel:
    """flops: of the operations that no earlier kernel has computed; one that this kernel computes is taken out."""
    size = int(node.get_read_write_buffers_sizes())
    if isinstance(node, ExternKernelSchedulerNode) and node.node is not None:      # a kernel that Inductor does not write
        for origin in node.node.get_origins():
            if origin.name in flops:
                return replace(flops.pop(origin.name), bytes=size)
    return Kernel("", 0, size, "compiled")


def _transient(lowering: GraphLowering, nodes: Sequence[Any]) -> int:
    """Peak bytes of the buffers inside a graph: from the kernel that writes one to the last that reads it."""
    outside = {*lowering.graph_inputs, *lowering.get_output_names()}
    last = {name: number for number, node in enumerate(nodes) for name in {*node.used_buffer_names()}}
    alive: dict[str, int] = {}
    peak = 0
    for number, node in enumerate(nodes):
        alive |= {name: _size(lowering, name) for name in node.get_buffer_names() if name not in outside and name in last}
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last[name] > number}
    return peak


def _size(lowering: GraphLowering, name: str) -> int:
    layout: Any = getattr(lowering.try_get_buffer(name), "layout", None)
    return int(layout.storage_size()) * layout.dtype.itemsize if isinstance(layout, Layout) else 0


@contextmanager
def _gpu() -> Iterator[None]:
    """Within the block, Inductor sees an H100 where there is no GPU."""
    if torch.cuda.is_available():
        yield
        return
    answers: dict[str, Callable[..., Any]] = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.get_device_capability": lambda *device: (_H100.major, _H100.minor),
        "torch.cuda.get_device_properties": lambda *device: _H100,
        "torch._inductor.scheduler.has_triton": lambda: True,
    }
    try:
        with ExitStack() as stack:
            for name, answer in answers.items():
                stack.enter_context(mock.patch(name, answer))
            stack.enter_context(mock.patch.object(CudaInterface, "get_device_properties", staticmethod(lambda *device: _H100)))
            yield
    finally:
        DeviceProperties.create.cache_clear()
