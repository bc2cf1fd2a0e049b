"""Networks that judge and are never trained."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """Holds a network outside of its parameters and its state dict.

    It moves between devices with the module, but keeps float32, stays in eval mode, and appears in no checkpoint, optimizer,
    EMA or DDP bucket. Gradients reach its inputs.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        network.eval()
        for weight in network.parameters():      # requires_grad_ of a ScriptModule raises
            weight.requires_grad_(False)
        object.__setattr__(self, "network", network)

    @property
    def device(self) -> torch.device:
        tensors = (*self.network.parameters(), *self.network.buffers(), *self.buffers())
        return tensors[0].device if tensors else torch.device("cpu")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        super()._apply(fn, recurse)
        self.network.to(fn(torch.empty(0, device=self.device)).device)
        return self

    def __call__(self, *args: Any) -> Tensor:
        """Run in float32, whatever autocast says."""
        with torch.autocast(self.device.type, enabled=False):
            return super().__call__(*args)
