"""The recipe table of the optimizer, the learning-rate schedule, and the optimizer state as named tensors."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import Parameter

from smtool.config import Config
from smtool.training.sharding import like, local, whole

_FUSED = ("cuda", "cpu")
"""Devices on which one kernel updates weights and moments."""
Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamW(Config):
    """AdamW with linear warm-up, then a constant or decaying rate (defaults: released-code.md#autoencoder-training)."""

    lr: float = Field(5e-5, gt=0, description="learning rate after the warm-up; not scaled by batch size or number of ranks")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999), description="decay rates of the moving averages of the gradient and of its square"
    )
    weight_decay: float = Field(
        0.005, ge=0, description="decoupled weight decay: each update shrinks the weights by lr * weight_decay"
    )
    eps: float = Field(1e-8, gt=0, description="added to the square root of the second moment, to avoid division by 0")
    warmup: int = Field(2000, ge=0, description="updates over which the rate rises linearly to lr; 0: no warm-up")
    warmup_from: Literal["first-step", "zero"] = Field(
        "first-step",
        description='rate of update k = 0, 1, ... in the warm-up: lr (k + 1) / warmup; "zero" (released trainers): lr k / warmup',
    )
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="rate after the warm-up: constant, or a cosine or linear decay to lr_end * lr"
    )
    lr_end: float = Field(0.0, ge=0, lt=1, description="rate at the end of the decay and after it, as a fraction of lr")
    decay_start: int = Field(0, ge=0, description="update at which the decay begins; 0: at the end of the warm-up")
    decay_end: int = Field(0, ge=0, description="update at which the decay ends; 0: with the run")
    clip: float | Literal["off"] = Field(1.0, description='limit of the norm of the whole gradient; "off": no limit')

    @field_validator("lr_end", "decay_start", "decay_end")
    @classmethod
    def _only_of_a_decay(cls, value: float, info: ValidationInfo) -> float:
        if value and info.data.get("schedule") == "constant":
            raise ValueError('has no effect with schedule = "constant"; use "cosine" or "linear"')
        return value

    @field_validator("decay_start", "decay_end")
    @classmethod
    def _after(cls, update: int, info: ValidationInfo) -> int:
        before = "warmup" if info.field_name == "decay_start" else "decay_start"
        if update and update < (earliest := info.data.get(before, 0)):
            raise ValueError(f"must be at least {before} = {earliest}, but is {update}")
        return update

    def build(
        self, parameters: Iterable[tuple[str, Parameter]], device: str, multipliers: Mapping[str, float] = {}
    ) -> "NamedOptimizer":
        """The optimizer of those parameters that require gradients (a fixed table of positions is a parameter that does not).

        multipliers: parameter name -> factor of its learning rate, 1 for names that are absent.
        """
        learning = {name: parameter for name, parameter in parameters if parameter.requires_grad}
        return NamedOptimizer(self, learning, fused=torch.device(device).type in _FUSED, multipliers=multipliers)

    def rate(self, update: int, last_update: int) -> float:
        """The learning rate of update number `update` (from 0); last_update: the last one of the run, where a decay ends unless
        decay_end is set."""
        if update < self.warmup:
            return self.lr * (update + (self.warmup_from == "first-step")) / self.warmup
        if self.schedule == "constant":
            return self.lr
        first, last = self.decay_start or self.warmup, self.decay_end or last_update
        done = min(1.0, max(0, update - first) / max(1, last - first))
        left = 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return self.lr * (self.lr_end + (1 - self.lr_end) * left)


class NamedOptimizer:
    """torch.optim.AdamW over named parameters with a count of updates; its state is a flat dict of tensors by parameter name."""

    def __init__(
        self, table: AdamW, parameters: dict[str, Parameter], *, fused: bool, multipliers: Mapping[str, float] = {}
    ) -> None:
        self.table = table
        self.parameters = parameters
        self.updates = 0
        self.torch = torch.optim.AdamW(
            _groups(parameters, multipliers),
            lr=table.lr,
            betas=table.betas,
            weight_decay=table.weight_decay,
            eps=table.eps,
            fused=fused,
        )

    def set_rate(self, last_update: int) -> float:
        """Set the rates of the next update; returns the one of parameters without a multiplier."""
        rate = self.table.rate(self.updates, last_update)
        for group in self.torch.param_groups:
            group["lr"] = rate * group["multiplier"]
        return rate

    def clip(self) -> Tensor:
        """Scale the gradients down to the norm limit; return the norm before scaling, over all shards of sharded parameters."""
        limit = math.inf if self.table.clip == "off" else self.table.clip
        return whole(nn.utils.clip_grad_norm_(self.parameters.values(), limit))

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{name}|{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.torch.state.get(parameter, {}).items()
        }

    def load_state_dict(self, state: Iterable[tuple[str, Tensor]], updates: int) -> None:
        """Load the tensors that `state_dict` returned; a rank with sharded parameters keeps its shards. updates: their count."""
        self.updates = updates
        for named, value in state:
            name, key = named.rsplit("|", 1)
            parameter = self.parameters[name]
            kept: dict[str, Any] = self.torch.state[parameter]
            if key == "step":
                kept[key] = value.to(parameter.device) if self.torch.param_groups[0]["fused"] else value
            else:      # in the parameter's memory layout, because a fused step pairs both by memory position
                kept[key] = torch.empty_like(parameter, requires_grad=False)
                local(kept[key]).copy_(local(like(value, parameter)))


def _groups(parameters: Mapping[str, Parameter], multipliers: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameters grouped by the multiplier of their rate, in order of first appearance."""
    groups: dict[float, list[Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(multipliers.get(name, 1.0), []).append(parameter)
    return [{"params": members, "multiplier": factor} for factor, members in groups.items()]
