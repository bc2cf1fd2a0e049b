"""Short operations by which the rates of a CPU are measured; on the meta device they are counted."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import cycle, islice
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

_ATEN = torch.ops.aten
_ROWS, _IMAGES = 256, 8
_COLD = 16
"""Operands of element-wise operations, used in turn: 64 MB, so that they come from memory, as in a step."""

Call = Callable[[], object]
Probe = Callable[[str, torch.dtype], Call]
"""(device, dtype) -> a call of one operation on tensors there."""


def product(width: int) -> Probe:
    """A linear layer that makes 256 rows four times as wide, forward and backward: three matrix products."""

    def probe(device: str, dtype: torch.dtype) -> Call:
        shapes = ((_ROWS, width), (_ROWS, 4 * width), (4 * width, width))
        x, out, weight = (torch.ones(*shape, device=device, dtype=dtype) for shape in shapes)
        return lambda: (torch.mm(x, weight.t()), torch.mm(out, weight), torch.mm(out.t(), x))

    return probe


def convolution(channels: int, side: int, *, backward: bool) -> Probe:
    """A 3x3 convolution of 8 images, as autoencoders have them on a CPU; backward: of input and weight."""

    def probe(device: str, dtype: torch.dtype) -> Call:
        x, weight = (
            torch.ones(*shape, device=device, dtype=dtype)
            for shape in ((_IMAGES, channels, side, side), (channels, channels, 3, 3))
        )
        layout: Any = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        if backward:
            return lambda: _ATEN.convolution_backward(x, x, weight, None, *layout, [True, True, False])
        return lambda: _ATEN.convolution(x, weight, None, *layout)

    return probe


def linear(rows: int, width: int) -> Probe:
    """A linear layer with bias, which a CPU writes into the result before the product is added."""

    def probe(device: str, dtype: torch.dtype) -> Call:
        shapes = ((rows, width), (4 * width, width), (4 * width,))
        x, weight, bias = (torch.ones(*shape, device=device, dtype=dtype) for shape in shapes)
        return lambda: torch.addmm(bias, x, weight.t())

    return probe


def attention(images: int, tokens: int, width: int) -> Probe:
    """Self-attention with 4 heads of this width, forward and backward."""

    def probe(device: str, dtype: torch.dtype) -> Call:
        x = torch.ones(images, 4, tokens, width, device=device, dtype=dtype).requires_grad_()

        def both() -> object:
            out = F.scaled_dot_product_attention(x, x, x)
            return torch.autograd.grad(out, x, torch.ones_like(out))

        return both

    return probe


def operands(device: str) -> Iterator[Tensor]:
    """Endlessly: 2**20 numbers each, 32 images of 32 channels. The same for all probes."""
    return cycle(_all_operands(device))


def forget_operands() -> None:
    """Free their memory."""
    _all_operands.cache_clear()


@cache
def _all_operands(device: str) -> list[Tensor]:
    return [torch.ones(32, 32, 32, 32, device=device) for _ in range(_COLD)]


def _group_norm(device: str, dtype: torch.dtype) -> Call:
    scale, given = torch.ones(32, device=device), operands(device)
    return lambda: _ATEN.native_group_norm(next(given), scale, scale, 32, 32, 1024, 8, 1e-6)


def _group_norm_backward(device: str, dtype: torch.dtype) -> Call:
    scale, moments, given = torch.ones(32, device=device), torch.ones(32, 8, device=device), operands(device)

    def call() -> object:
        gradient, x = next(given), next(given)
        return _ATEN.native_group_norm_backward(gradient, x, moments, moments, scale, 32, 32, 1024, 8, [True, True, True])

    return call


def _layer_norm(device: str, dtype: torch.dtype) -> Call:
    x = torch.ones(4096, 128, device=device)
    return lambda: _ATEN.native_layer_norm(x, [128], None, None, 1e-6)


def _layer_norm_backward(device: str, dtype: torch.dtype) -> Call:
    x, scale, moments = torch.ones(4096, 256, device=device), torch.ones(256, device=device), torch.ones(4096, 1, device=device)
    return lambda: _ATEN.native_layer_norm_backward(x, x, [256], moments, moments, scale, scale, [True, True, True])


def _transposed(device: str, dtype: torch.dtype) -> Call:
    """A copy of tokens whose heads are moved, in runs of 32 numbers."""
    given = operands(device)
    return lambda: _ATEN.clone(next(given).permute(0, 2, 3, 1).transpose(1, 2), memory_format=torch.contiguous_format)


def _of(operation: Any, number: int, **options: str) -> Probe:
    """An element-wise operation of `number` tensors."""

    def probe(device: str, dtype: torch.dtype) -> Call:
        given = operands(device)
        return lambda: operation(*islice(given, number), **options)

    return probe


ELEMENTWISE: Final[tuple[Probe, ...]] = (
    _of(_ATEN.add, 2),
    _of(_ATEN.silu, 1),
    _of(_ATEN.silu_backward, 2),
    _of(_ATEN.gelu, 1, approximate="tanh"),
    _of(_ATEN.gelu_backward, 2, approximate="tanh"),
    _group_norm,
    _group_norm_backward,
    _layer_norm,
    _layer_norm_backward,
    _transposed,
)
"""In float32, whatever the precision: autocast computes them so, or the difference is small."""
