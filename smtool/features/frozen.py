"""Frozen networks: judges of scores, teachers and perceptual losses."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

TeacherPrecision = Literal["fp32", "bf16"]


class Frozen(nn.Module):
    """Holds a network that is not part of the module's parameters and state dict.

    The network moves between devices with the module, but keeps float32 and eval mode, and is in no checkpoint and no optimizer.
    A deep copy of a containing module, such as its weight average, shares the same object. Gradients flow to the inputs.
    name: of the network in recipes and scores; digest: sha256 of its weights.
    """

    network: nn.Module
    name: str
    digest: str

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

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        return self

    def __call__(self, *args: Any) -> Tensor:
        """Run the forward pass in float32, also under autocast."""
        with torch.autocast(self.device.type, enabled=False):
            return super().__call__(*args)


class FrozenInTraining(Frozen):
    """A frozen network that computes in the steps of a training: teachers, encoders, the trunk of a discriminator.

    precision: of the network there. "bf16": autocast, with float32 weights.
    """

    precision: TeacherPrecision = "fp32"

    def in_precision(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


def frozen_digests(*modules: nn.Module | None) -> dict[str, str]:
    """Name -> digest of all frozen networks inside the modules."""
    inside = (part for module in modules if module is not None for part in module.modules())
    return {part.name: part.digest for part in inside if isinstance(part, Frozen)}
