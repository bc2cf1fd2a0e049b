"""Numbers on their way into JSON, which has neither NaN nor infinity."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor


def or_reason(fit: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the fit finds, or why it cannot be made: {"reason": ...}."""
    try:
        return fit()
    except ValueError as error:
        return {"reason": str(error)}


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def numbers(values: Tensor) -> list[float | None]:
    """Six significant digits, and None for what is not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]
