"""Building networks without values, to count parameters or to load the tensors of a file into them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build networks within the block on the meta device, without initialization.

    Initialization is skipped because drawing normal numbers on the meta device makes PyTorch import its compiler (one second).
    """
    with torch.device("meta"), _NothingWritten():
        yield


class _NothingWritten(TorchFunctionMode):
    """Makes operations that write numbers into meta tensors return them unchanged."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, named = getattr(func, "__name__", ""), kwargs or {}
        target = args[0] if args else named.get("tensor")      # nn.init functions pass it by this name
        writes = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        if writes and isinstance(target, Tensor) and target.is_meta:
            return target
        return func(*args, **named)
