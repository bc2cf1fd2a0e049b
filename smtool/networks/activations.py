"""The largest magnitude among the outputs of a network's layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn


@dataclass
class LargestActivation:
    """Records the largest output magnitude of each module of a network; values stay on the device until `largest` is called."""

    by_layer: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self, network: nn.Module | None) -> Iterator[None]:
        """Hook every module within the block. Values that no module returns, such as attention scores, are not recorded."""
        modules = [] if network is None else [(name, module) for name, module in network.named_modules() if name]
        hooks = [module.register_forward_hook(partial(self._see, name)) for name, module in modules]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def largest(self) -> tuple[float, str]:
        """The largest magnitude and its layer; if outputs are not finite, the first such layer."""
        broken = [name for name, value in self.by_layer.items() if not value.isfinite()]
        layer = broken[0] if broken else max(self.by_layer, key=lambda name: self.by_layer[name].item())
        return self.by_layer[layer].item(), layer

    def _see(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            low, high = output.aminmax()      # vectorized, unlike the infinity norm
            value = torch.maximum(-low, high).float()
            self.by_layer[name] = torch.maximum(value, self.by_layer[name]) if name in self.by_layer else value
