"""The largest value that any layer of a network returns."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn


@dataclass
class LargestActivation:
    """The largest magnitude that left each module of a network while it was watched, kept on the device until it is asked for."""

    by_layer: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self, network: nn.Module | None) -> Iterator[None]:
        """Hook every module within this block. Sums outside modules' outputs, such as attention scores, are not seen."""
        modules = [] if network is None else [(name, module) for name, module in network.named_modules() if name]
        hooks = [module.register_forward_hook(partial(self._see, name)) for name, module in modules]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def largest(self) -> tuple[float, str]:
        """The value and its layer; the first layer that is not finite, if there is one."""
        broken = [name for name, value in self.by_layer.items() if not value.isfinite()]
        layer = broken[0] if broken else max(self.by_layer, key=lambda name: self.by_layer[name].item())
        return self.by_layer[layer].item(), layer

    def _see(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            low, high = output.aminmax()      # vectorized, which the infinity norm is not
            value = torch.maximum(-low, high).float()
            self.by_layer[name] = torch.maximum(value, self.by_layer[name]) if name in self.by_layer else value
