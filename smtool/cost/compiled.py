"""Counts blocks that torch.compile fuses: the kernels of a compiled block in place of those of its operations."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import _disable_current_modes

from smtool.cost.counting import add_kernels, counting
from smtool.cost.cuda_autocast import CudaAutocast
from smtool.errors import RecipeError

if TYPE_CHECKING:
    from torch import fx

Block = Callable[..., Tensor]
_traced: dict[object, Block] = {}


@contextmanager
def as_compiled(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Within the block, calls of these modules add compiled kernels to the current count. Blocks of one kind share a graph.

    Inside, nothing is computed: values that a compiled forward pass stores for the backward pass are made, and no others.
    """
    for block in blocks:
        block._compiled_call_impl = partial(_call, block)
    try:
        yield
    finally:
        for block in blocks:
            del block._compiled_call_impl


@cache
def obstacle() -> str | None:
    """Why this installation's compiler cannot be asked for its kernels, in one sentence; None if it can. Takes seconds."""
    block = nn.Sequential(nn.Linear(8, 8), nn.GELU()).to("meta")
    try:
        with counting() as count, as_compiled([block]):
            block(torch.empty(4, 8, device="meta", requires_grad=True)).sum().backward()
    except RecipeError as error:      # the compiler's interfaces are internal and may change with every version
        return error.message
    named = {kernel.name for kernel in count.kernels}
    return None if "compiled" in named else f"PyTorch {torch.__version__} compiles nothing here"


def _call(block: nn.Module, *inputs: Tensor) -> Tensor:
    state = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    tensors = (*state.values(), *inputs)
    key = (
        _kind(block), dtype, torch.is_grad_enabled(), tuple((x.shape, x.stride(), x.dtype, x.requires_grad) for x in tensors),
    )  # fmt: skip
    if key not in _traced:
        try:
            _traced[key] = _trace(block, state, inputs, dtype)
        except Exception as error:
            raise RecipeError(
                f"PyTorch {torch.__version__} does not say which kernels it would compile of a {type(block).__name__}: "
                f"{type(error).__name__}.",
                hint="Count a copy of the recipe without compile = true.",
            ) from error
    return _traced[key](state, *inputs)


def _kind(block: nn.Module) -> tuple[object, ...]:
    """Equal for blocks that compute the same function of their weights and inputs."""
    return tuple(
        (name, type(part), tuple(sorted((key, repr(value)) for key, value in vars(part).items() if not key.startswith("_"))))
        for name, part in block.named_modules()
    )


def _trace(block: nn.Module, state: dict[str, Tensor], inputs: Sequence[Tensor], dtype: torch.dtype | None) -> Block:
    """The block as compiled graphs, which were called once with stand-ins: forward, and backward where gradients are wanted."""
    from torch._functorch.aot_autograd import aot_function
    from torch._inductor.decomposition import select_decomp_table

    from smtool.cost.inductor import partition

    whole = _Plain(block)

    def function(state: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        named = {f"block.{name}": value for name, value in state.items()}
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            found: Tensor = torch.func.functional_call(whole, named, inputs)
        return found

    compiled: Block = aot_function(
        function, fw_compiler=partial(_graph, backward=False), bw_compiler=partial(_graph, backward=True),
        decompositions=select_decomp_table(), partition_fn=partition, keep_inference_input_mutations=True,
    )  # fmt: skip
    keep = saved_tensors_hooks(_same, _same)      # in place of those of a recomputed block, which count what is stored
    with counting(), _disable_current_modes(), CudaAutocast(keep_weights=False), keep:
        result = compiled({name: _like(x) for name, x in state.items()}, *map(_like, inputs))
        if result.requires_grad:
            result.sum().backward()
    return compiled


class _Plain(nn.Module):
    """A block's forward pass itself, without its hooks, its recomputation and what stands for it."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *inputs: Tensor) -> Tensor:
        found: Tensor = self.block.forward(*inputs)
        return found


def _same(x: Tensor) -> Tensor:
    return x


def _like(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device, requires_grad=x.requires_grad)


def _graph(graph: "fx.GraphModule", inputs: Sequence[Any], *, backward: bool) -> Callable[[list[Any]], list[Tensor | None]]:
    """For AOTAutograd: a function that adds the kernels of a graph to the current counter and makes its outputs."""
    from smtool.cost.inductor import kernels_of

    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    values = [None if node is None else node.meta["val"] for node in output.args[0]]
    shapes = [None if x is None else (tuple(x.shape), tuple(x.stride()), x.dtype) for x in values]
    counted = kernels_of(graph, backward=backward)

    def run(given: list[Any]) -> list[Tensor | None]:
        given.clear()
        add_kernels(counted.kernels, counted.transient_bytes)
        return [None if x is None else torch.empty_strided(x[0], x[1], dtype=x[2], device="meta") for x in shapes]

    run._boxed_call = True      # type: ignore[attr-defined]
    return run
