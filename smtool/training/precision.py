"""Mixed precision: autocast, weights that are cast once, and loss scaling."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: str) -> AbstractContextManager[Any]:
    """Autocast on the device's kind to this format; nothing for fp32."""
    return nullcontext() if precision == "fp32" else torch.autocast(torch.device(device).type, dtype=_DTYPES[precision])


@contextmanager
def weights_cast_once(networks: Iterable[nn.Module], precision: Precision, device: str) -> Iterator[None]:
    """Within the block, autocast casts the weights of frozen networks in their first call only, with the same results.

    Autocast keeps the casts of weights that require gradients, until the outermost autocast ends; the block is that one, and
    itself casts nothing. Run it without gradients.
    """
    if precision == "fp32":
        yield
        return
    weights = [p for network in networks for p in network.parameters() if not p.requires_grad and p.is_floating_point()]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        with torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)


class MixedPrecision:
    """Autocast for forward passes and, with fp16, loss scaling against underflow of small gradients. Weights stay float32.

    dtype: that products are taken in; None: that of their inputs.
    """

    def __init__(self, precision: Precision, device: str) -> None:
        self.precision = precision
        self.dtype = _DTYPES.get(precision)
        self.device = torch.device(device).type
        self.scaler = torch.amp.GradScaler(self.device, enabled=precision == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.precision, self.device)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide gradients by the loss scale, before they are clipped."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights. With fp16, an update with infinite gradients is skipped and the scale is reduced."""
        self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self.scaler.load_state_dict(state)
