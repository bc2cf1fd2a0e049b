"""Operations of smtool's own in PyTorch's dispatcher, so that they run without values too, and count as one kernel each.

Not `torch.library.custom_op`, which imports PyTorch's compiler (seconds) when an operation is first called.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

WIDEST = 4096
"""Channels of a pixel that Triton's kernels can hold."""
_LIBRARY = torch.library.Library("smtool", "DEF")


def operation(schema: str, compute: Callable[..., Any], without_values: Callable[..., Any]) -> Callable[..., Any]:
    """Define an operation without gradients. without_values: makes the results for tensors on the meta device and fake ones."""
    name = schema.split("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, compute, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, without_values, "Meta")
    found: Callable[..., Any] = getattr(torch.ops.smtool, name).default
    return found


def suits_triton(*images: Tensor) -> bool:
    """Whether kernels in Triton can compute with these tensors (B, C, H, W): on a GPU, in channels_last, of a common dtype."""
    return has_triton() and all(
        x.is_cuda
        and x.dtype in (torch.bfloat16, torch.float16, torch.float32)
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.shape[1] <= WIDEST
        for x in images
    )


@cache
def has_triton() -> bool:
    return find_spec("triton") is not None
