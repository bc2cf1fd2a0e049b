"""Short operations by which the rates of a CPU are measured; on the meta device they are counted."""

from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

_ATEN = torch.ops.aten
_ROWS, _IMAGES, _TOKENS = 256, 8, 256

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
    """A 3x3 convolution of 8 images, in channels_last as autoencoders have them; backward: of input and weight."""

    def probe(device: str, dtype: torch.dtype) -> Call:
        x, weight = (
            torch.ones(*shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
            for shape in ((_IMAGES, channels, side, side), (channels, channels, 3, 3))
        )
        layout: Any = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        if backward:
            return lambda: _ATEN.convolution_backward(x, x, weight, None, *layout, [True, True, False])
        return lambda: _ATEN.convolution(x, weight, None, *layout)

    return probe


def attention(device: str, dtype: torch.dtype) -> Call:
    """Self-attention of 8 x 256 tokens with 4 heads of 64, forward and backward."""
    tokens = torch.ones(_IMAGES, 4, _TOKENS, 64, device=device, dtype=dtype).requires_grad_()

    def both() -> object:
        out = F.scaled_dot_product_attention(tokens, tokens, tokens)
        return torch.autograd.grad(out, tokens, torch.ones_like(out))

    return both


def _images(device: str) -> Tensor:
    """2**20 numbers: 32 images of 32 channels."""
    return torch.ones(32, 32, 32, 32, device=device).contiguous(memory_format=torch.channels_last)


def _group_norm(device: str, dtype: torch.dtype) -> Call:
    x, scale = _images(device), torch.ones(32, device=device)
    return lambda: _ATEN.native_group_norm(x, scale, scale, 32, 32, 1024, 8, 1e-6)


def _group_norm_backward(device: str, dtype: torch.dtype) -> Call:
    x, scale, moments = _images(device), torch.ones(32, device=device), torch.ones(32, 8, device=device)
    return lambda: _ATEN.native_group_norm_backward(x, x, moments, moments, scale, 32, 32, 1024, 8, [True, True, True])


def _layer_norm(device: str, dtype: torch.dtype) -> Call:
    x, scale = torch.ones(4096, 256, device=device), torch.ones(256, device=device)
    return lambda: _ATEN.native_layer_norm(x, [256], scale, scale, 1e-6)


def _layer_norm_backward(device: str, dtype: torch.dtype) -> Call:
    x, scale, moments = torch.ones(4096, 256, device=device), torch.ones(256, device=device), torch.ones(4096, 1, device=device)
    return lambda: _ATEN.native_layer_norm_backward(x, x, [256], moments, moments, scale, scale, [True, True, True])


def _of(operation: Any, number: int, **options: str) -> Probe:
    """An element-wise operation of `number` tensors."""

    def probe(device: str, dtype: torch.dtype) -> Call:
        given = [_images(device) for _ in range(number)]
        return lambda: operation(*given, **options)

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
)
"""In float32, whatever the precision: autocast computes them so, or the difference is small."""
