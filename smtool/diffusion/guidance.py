"""Classifier-free guidance within an interval of time."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from smtool.networks.transformer import Prediction


class Model(Protocol):
    """The function that a sampler calls: x (B, C, h, w) and network_time (B,) -> prediction (B, C, h, w).

    step_time: network time (B,) at the start of the sampler's step; None: `network_time`.
    """

    def __call__(self, x: Tensor, network_time: Tensor, /, *, step_time: Tensor | None = None) -> Tensor: ...


Network = Callable[[Tensor, Tensor, Tensor | None], Prediction]
"""(x, network_time, labels (B,) or None) -> the network's prediction."""


def guided(
    network: Network, labels: Tensor | None, *, null: int, scale: float, interval: tuple[float, float], channels: int = 0
) -> Model:
    """A Model with guidance u + scale (c - u), where c and u are the network's predictions for `labels` and for `null`.

    channels: guide the first so many channels, and take c for the others, as LightningDiT's released code does
    (released-code.md#lightningdit); 0: all. Guidance is used only if interval[0] <= time <= interval[1] and scale > 1; otherwise
    only c is computed. For all calls of a step, the time at the start of the step decides, as in REPA's samplers. The interval is
    in network time (`Sampler.model` converts it). Each sampler's drift is an affine function of the prediction, so guiding the
    prediction equals guiding the drift (released-code.md#euler-maruyama). The network computes with float32 inputs; the result
    has x's dtype.
    Raises ValueError if scale > 1 without labels.
    """
    if labels is None and scale > 1:
        raise ValueError(f"guidance of scale {scale} needs labels, but this network is unconditional; scale 1 works")

    def conditional(x: Tensor, time: Tensor, *, step_time: Tensor | None = None) -> Tensor:
        return network(x.float(), time.float(), labels).output.to(x.dtype)

    def model(x: Tensor, time: Tensor, *, step_time: Tensor | None = None) -> Tensor:
        if labels is None or not _within(interval, time if step_time is None else step_time):
            return conditional(x, time)
        both = torch.cat([labels, torch.full_like(labels, null)])
        output = network(torch.cat([x.float()] * 2), torch.cat([time.float()] * 2), both).output.to(x.dtype)
        with_label, without = output.chunk(2)
        every = without + scale * (with_label - without)
        return torch.cat([every[:, :channels], with_label[:, channels:]], 1) if channels else every

    return model if scale > 1 else conditional


def _within(interval: tuple[float, float], time: Tensor) -> bool:
    """Whether the time, equal for all samples, is in the interval."""
    return interval[0] <= float(time[0]) <= interval[1]
