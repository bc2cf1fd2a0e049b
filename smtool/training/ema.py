"""An exponential moving average of the weights."""

import copy

import torch
from pydantic import Field
from torch import Tensor, nn

from smtool.config import Config
from smtool.training.sharding import local


class EMA(Config):
    """Average the weights over time; what is saved as `ckpt.safetensors`, validated and evaluated is then the average."""

    decay: float = Field(0.9999, gt=0, lt=1, description="weight of the old average in each update")
    warmup: bool = Field(True, description="at most (1 + n) / (10 + n) at update n, so that the start is forgotten")

    def build(self, module: nn.Module) -> "MovingAverage":
        return MovingAverage(module, self.decay, warmup=self.warmup)


class MovingAverage:
    """A copy of a module whose floating-point tensors follow the module's; buffers and integers are copied.

    Of a module that is to be sharded it is made before, and sharded in the same way.
    """

    def __init__(self, module: nn.Module, decay: float, *, warmup: bool) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay
        self.warmup = warmup

    @torch.no_grad()
    def update(self, module: nn.Module, count: int) -> None:
        """Take the count-th update (from 1) of the module in."""
        decay = min(self.decay, (1 + count) / (10 + count)) if self.warmup else self.decay
        averages = dict(self.module.named_parameters())
        current = dict(module.named_parameters())
        mine: list[Tensor] = [local(average) for average in averages.values()]
        theirs = [local(current[name].detach()) for name in averages]
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for name, buffer in self.module.named_buffers():
            buffer.copy_(module.get_buffer(name))

    def state_dict(self) -> dict[str, Tensor]:
        return self.module.state_dict()
