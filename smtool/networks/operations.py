"""Operations of smtool's own in PyTorch's dispatcher, so that they run without values too, and count as one kernel each.

Not `torch.library.custom_op`, which imports PyTorch's compiler (seconds) when an operation is first called.
"""

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

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


def kernels_agree(name: str, check: Callable[[torch.device, torch.dtype], bool], x: Tensor) -> bool:
    """Whether the kernels `name` give PyTorch's results on the GPU of x. check: compares both, on small tensors of its own.

    It is called once for each device and dtype. If it finds a difference, or a kernel cannot be compiled, a warning says so, and
    the caller uses PyTorch's functions. Tensors without values pass.
    """
    return type(x) not in (Tensor, nn.Parameter) or _agree(name, check, x.device, x.dtype)


@cache
def _agree(
    name: str, check: Callable[[torch.device, torch.dtype], bool], device: torch.device, dtype: torch.dtype
) -> bool:
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        try:
            found = "" if check(device, dtype) else "they differ from PyTorch's functions"
        except Exception as error:      # whatever Triton, its compiler or the driver raise
            found = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if found:
        warnings.warn(f"The Triton kernels of {name} are not used on {device} for {dtype}: {found}.", stacklevel=2)
    return not found
