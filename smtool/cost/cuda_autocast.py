"""Autocast and attention of a GPU for tensors on the meta device, where PyTorch has neither.

The lists are those of PyTorch's CUDA autocast (documentation "Autocast Op Reference" and aten/src/ATen/autocast_mode.h). Within
the block, code that asks for autocast on "meta" gets the switch of the CPU, which has no effect on meta tensors, and the mode
casts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

HALF = frozenset(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d prelu addmm addmv addr matmul __matmul__
    __rmatmul__ einsum mm mv linear addbmm baddbmm bmm chain_matmul multi_dot vecdot scaled_dot_product_attention
    """.split()  # noqa: SIM905
)
"""Names of functions that autocast runs in bfloat16 or float16."""
FULL = frozenset(
    """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow __pow__ __rpow__ square softplus
    layer_norm group_norm cosine_similarity kl_div l1_loss smooth_l1_loss huber_loss mse_loss nll_loss cross_entropy
    binary_cross_entropy_with_logits cdist logsumexp interpolate normalize prod softmax log_softmax cumprod cumsum sum
    norm vector_norm linalg_vector_norm linalg_norm
    """.split()  # noqa: SIM905
)
"""Names of functions that autocast runs in float32. interpolate, normalize and square reach PyTorch's list through
the functions that they call."""
WIDEST = frozenset(
    """
    cat concat stack addcdiv addcmul atan2 dot grid_sample index_put tensordot scatter_add
    """.split()  # noqa: SIM905
)
"""Names of functions whose inputs autocast brings to the widest dtype among them."""


@contextmanager
def cuda_autocast() -> Iterator[None]:
    """Within the block, functions of meta tensors have the dtypes and the attention kernels that they have on a GPU."""
    usual = torch.autocast

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> torch.autocast:
        return usual("cpu" if device_type == "meta" else device_type, *args, **kwargs)

    setattr(torch, "autocast", autocast)      # noqa: B010
    try:
        with CudaAutocast():
            yield
    finally:
        setattr(torch, "autocast", usual)      # noqa: B010


class CudaAutocast(TorchFunctionMode):
    """Casts the inputs of functions by name, and runs attention by a fused kernel.

    keep_weights: as on a GPU, the cast of a trained weight is kept until autocast ends, so that each is cast once per pass.
    """

    def __init__(self, *, keep_weights: bool = True) -> None:
        super().__init__()
        self._keep = keep_weights
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named, name = kwargs or {}, getattr(func, "__name__", "")
        if func in (Tensor.backward, torch.autograd.grad):
            with self:      # which is off here: blocks that are recomputed need the same dtypes
                if func is torch.autograd.grad:
                    return _of_grad(*args, **named)
                self._weights.clear()
                return _of_backward(*args, **named)
        if torch.is_autocast_enabled("cpu"):
            args, named = self._cast(name, args, named)
        if func is F.scaled_dot_product_attention and args[0].is_meta:
            return fused_attention(*args, **named)
        return func(*args, **named)

    def _cast(self, name: str, args: Sequence[Any], named: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        if name in HALF:
            dtype = torch.get_autocast_dtype("cpu")
        elif name in FULL:
            dtype = torch.float32
        elif name in WIDEST:
            dtype = _widest((*args, *named.values()))
        else:
            return args, named
        given = (tuple(args), dict(named))
        found: tuple[Sequence[Any], Mapping[str, Any]] = tree_map_only(Tensor, lambda x: self._as(x, dtype), given)
        return found

    def _as(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        if not x.is_meta or not x.is_floating_point() or x.dtype in (dtype, torch.float64):
            return x
        if not (self._keep and x.is_leaf and x.requires_grad and x.dtype == torch.float32):
            return x.to(dtype)
        if id(x) not in self._weights:
            self._weights[id(x)] = (x, x.to(dtype))
        return self._weights[id(x)][1]


def _backward(
    outputs: Tensor | Sequence[Tensor], gradients: Any, *, retain: bool | None, create: bool, inputs: Any, accumulate: bool
) -> tuple[Tensor | None, ...]:
    """PyTorch's engine itself: its Python functions would switch the mode off."""
    ends = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    given = (gradients,) if isinstance(gradients, Tensor) else gradients or [None] * len(ends)
    starts = tuple(torch.ones_like(x) if one is None else one for x, one in zip(ends, given, strict=True))
    wanted = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs or ())
    keep = create if retain is None else retain
    engine: Any = torch.autograd.Variable._execution_engine
    found = engine.run_backward(ends, starts, keep, create, wanted, allow_unreachable=True, accumulate_grad=accumulate)
    return tuple(found or ())


def _of_backward(
    outputs: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
) -> None:
    """`Tensor.backward`."""
    _backward(outputs, gradient, retain=retain_graph, create=create_graph, inputs=inputs, accumulate=True)


def _of_grad(
    outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None, create_graph: bool = False,
    **others: Any,
) -> tuple[Tensor | None, ...]:
    """`torch.autograd.grad`."""
    return _backward(outputs, grad_outputs, retain=retain_graph, create=create_graph, inputs=inputs, accumulate=False)


def _widest(values: Sequence[Any]) -> torch.dtype:
    found = torch.get_autocast_dtype("cpu")
    for value in values:
        for x in value if isinstance(value, list | tuple) else (value,):
            if isinstance(x, Tensor) and x.is_floating_point():
                found = torch.promote_types(found, x.dtype)
    return found


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` by the kernel that a GPU would choose: flash attention in half precision, else the
    memory-efficient kernel. Neither stores the square of the number of tokens. No masks."""
    assert attn_mask is None and not enable_gqa, "the networks of smtool use neither"
    if query.dtype in (torch.bfloat16, torch.float16):
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, None, True, dropout_p, is_causal, scale=scale)[0]
