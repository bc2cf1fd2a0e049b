"""Exponential moving average (EMA) of the weights."""

import copy

import torch
from pydantic import Field
from torch import Tensor, nn

from smtool.config import Config
from smtool.training.sharding import local


class EMA(Config):
    """Keep an exponential moving average of the weights, which is then validated, evaluated and saved as `ckpt.safetensors`."""

    decay: float = Field(
        0.9999, gt=0, lt=1,
        description="weight of the previous average in each update; 1 - decay is the weight of the new weights",
    )
    warmup: bool = Field(
        True, description="limit decay to (1 + n) / (10 + n) at update n, so that the initial weights are forgotten"
    )

    def build(self, module: nn.Module, *, share_frozen: bool = False) -> "MovingAverage":
        return MovingAverage(module, self.decay, warmup=self.warmup, share_frozen=share_frozen)


class MovingAverage:
    """A copy of a module whose trained weights are moving averages of the module's; buffers and integer tensors are copied.

    Buffers that a module inside names in `averaged_buffers` are averaged too. Parameters without gradients are not averaged: with
    share_frozen, they are the module's own tensors, and in no state dict.
    For a module that will be sharded, create it before and shard it in the same way.
    """

    def __init__(self, module: nn.Module, decay: float, *, warmup: bool, share_frozen: bool = False) -> None:
        frozen = {name: parameter for name, parameter in module.named_parameters() if not parameter.requires_grad}
        self.shared = frozenset(frozen) if share_frozen else frozenset()
        memory = {id(frozen[name]): frozen[name] for name in self.shared}
        self.module = copy.deepcopy(module, memory).requires_grad_(False).eval()
        self.averaged = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        self.averaged_buffers = [
            f"{prefix}.{name}".lstrip(".")
            for prefix, part in module.named_modules()
            for name in getattr(part, "averaged_buffers", ())
        ]
        self.decay = decay
        self.warmup = warmup

    @torch.no_grad()
    def update(self, module: nn.Module, count: int) -> None:
        """Update the average after the module's count-th update (counted from 1)."""
        decay = min(self.decay, (1 + count) / (10 + count)) if self.warmup else self.decay
        averages = dict(self.module.named_parameters())
        current = dict(module.named_parameters())
        mine: list[Tensor] = [local(averages[name]) for name in self.averaged]
        theirs = [local(current[name].detach()) for name in self.averaged]
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for name, buffer in self.module.named_buffers():
            if name in self.averaged_buffers:
                buffer.lerp_(module.get_buffer(name), 1 - decay)
            else:
                buffer.copy_(module.get_buffer(name))

    def state_dict(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.module.state_dict().items() if name not in self.shared}
