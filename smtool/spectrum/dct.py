"""The orthonormal discrete cosine transform as small matrix products.

DCT-II: X[k] = s_k sum_n x[n] cos(pi k (n + 1/2) / N), s_0 = sqrt(1/N), s_k = sqrt(2/N). Its inverse is its transpose (DCT-III).
All results are float32 or float64: half precision is converted to float32, autocast is switched off, float64 stays float64.
TF32 is a process-wide setting, off by default for matrix products; if it is on, these products lose precision too.
"""

import math
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor


class Constant(Protocol):
    """A function that returns a constant matrix in the given dtype and on the given device."""

    def __call__(self, *key: Hashable, dtype: torch.dtype, device: torch.device | str) -> Tensor: ...


def constant(build: Callable[..., Tensor]) -> Constant:
    """Decorator: cache the matrix that `build(*key)` returns in float64 on the CPU, per key, dtype and device.

    Matrices are built outside inference mode, so that one that is first used in inference mode also works in training.
    """

    @lru_cache(maxsize=256)
    def cached(key: tuple[Hashable, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
            return build(*key).to(device=device, dtype=dtype)

    def get(*key: Hashable, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        return cached(key, dtype, torch.device(device))

    return get


def full_precision(x: Tensor) -> Tensor:
    """x itself if it is float64, otherwise x as float32."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Context manager that switches autocast off on x's device, so that float32 stays float32. "meta" has the CPU's switch."""
    kind = "cpu" if x.is_meta else x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


@constant
def _dct_matrix(size: int) -> Tensor:
    cell = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * cell[:, None] * (cell + 0.5)) * math.sqrt(2 / size)
    matrix[0] = math.sqrt(1 / size)
    return matrix


def dct_matrix(size: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """The orthonormal DCT-II matrix (size, size); row k has frequency k, k / (2 size) cycles per pixel.

    The matrix is cached: treat it as read-only.
    """
    return _dct_matrix(size, dtype=dtype, device=device)


def dct2(x: Tensor) -> Tensor:
    """Orthonormal 2-D DCT-II over the last two axes, (..., H, W) -> (..., H, W); float64 stays, other dtypes become float32."""
    return _both_axes(x, transpose=False)


def idct2(x: Tensor) -> Tensor:
    """The inverse of `dct2` (orthonormal DCT-III), (..., H, W) -> (..., H, W); float64 stays, other dtypes become float32."""
    return _both_axes(x, transpose=True)


def apply_both(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ x @ columns^T for x (..., H, W), rows (h, H), columns (w, W)."""
    return rows @ (x @ columns.mT)


def _both_axes(x: Tensor, *, transpose: bool) -> Tensor:
    x = full_precision(x)
    rows, columns = (dct_matrix(side, dtype=x.dtype, device=x.device) for side in x.shape[-2:])
    with without_autocast(x):
        return apply_both(x, rows.mT, columns.mT) if transpose else apply_both(x, rows, columns)
