"""Replace single precision by double precision, so that formulas are compared and not rounding.

Both trainers use float32 in some places (`x.float()`, `dtype=torch.float32`). Within `everywhere()` these names mean float64 and
new tensors are float64, in the released code and in smtool.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def everywhere() -> Iterator[None]:
    single, to_single, default = torch.float32, Tensor.float, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float64  # type: ignore[misc]
    Tensor.float = Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.float32, Tensor.float = single, to_single  # type: ignore[misc, method-assign]
        torch.set_default_dtype(default)
