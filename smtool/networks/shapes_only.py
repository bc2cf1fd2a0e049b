"""Networks that are built for their names and shapes: to be counted, or to adopt the tensors of a file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def shapes_only() -> Iterator[None]:
    """What is built here lies on the meta device, and its initialization is skipped.

    Without the latter, drawing from a normal distribution on the meta device makes PyTorch import its compiler: a second.
    """
    with torch.device("meta"), _NothingWritten():
        yield


class _NothingWritten(TorchFunctionMode):
    """In-place operations on meta tensors return them as they are."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, named = getattr(func, "__name__", ""), kwargs or {}
        target = args[0] if args else named.get("tensor")      # as the functions of nn.init call it
        if name.endswith("_") and not name.endswith("__") and isinstance(target, Tensor) and target.is_meta:
            return target
        return func(*args, **named)
