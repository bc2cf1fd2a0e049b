"""Records a trainer's learning rates, gradient norms, updates and logged values in each step."""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from given.summary import change, copied
from torch import Tensor, nn

steps: list[dict[str, Any]] = []
"""One entry per step, filled while the trainer runs."""
_names: dict[int, tuple[str, str]] = {}
_before_clipping: list[float] = []


def watch(player: str, parameters: Mapping[str, nn.Parameter]) -> None:
    """Register the parameters of a player (autoencoder, discriminator or transformer) under smtool's names."""
    for name, parameter in parameters.items():
        _names[id(parameter)] = (player, name)


class WatchedAdamW(torch.optim.AdamW):
    """Adds the entry of a step: player, learning rate, norm of the gradient before clipping, update."""

    def step(self, closure: Any = None) -> Any:
        learning = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        parameters = {_names[id(p)][1]: p for p in learning}
        before = copied(parameters)
        norm = torch.stack([p.grad.norm() for p in learning]).norm()
        result = super().step(closure)
        steps.append(
            {
                "turn": _names[id(learning[0])][0],
                "rate": float(self.param_groups[0]["lr"]),
                "gradient": _before_clipping.pop() if _before_clipping else float(norm),
                "update": change(before, parameters),
            }
        )
        return result


class WatchedAccelerator(Accelerator):
    """Records gradient norms before clipping and the values that the trainer gathers or logs. Saves nothing."""

    def clip_grad_norm_(self, *args: Any, **kwargs: Any) -> Tensor:
        norm = super().clip_grad_norm_(*args, **kwargs)
        _before_clipping.append(float(norm))
        return norm

    def gather_for_metrics(self, input_data: Any, *args: Any, **kwargs: Any) -> Any:
        name = sys._getframe(1).f_locals["key"]
        value = self.gather(torch.as_tensor(input_data, dtype=torch.float64))
        steps[-1].setdefault("logged", {})[name] = float(value.mean())
        return value

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{name: value for name, value in kwargs.items() if name != "log_with"})

    def prepare_model(self, model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        """Return a module without trainable parameters unchanged, as accelerate does on GPUs but not on CPUs."""
        learns = any(parameter.requires_grad for parameter in model.parameters())
        return super().prepare_model(model, *args, **kwargs) if learns else model

    def init_trackers(self, *args: Any, **kwargs: Any) -> None:
        return None

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record the floats that the trainer logs in a step; images and other values are ignored."""
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        if numbers and "logged" not in steps[-1]:
            steps[-1]["logged"] = numbers

    def save_state(self, *args: Any, **kwargs: Any) -> None:
        return None
