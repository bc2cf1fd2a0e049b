"""Classifier-free guidance, in an interval of time."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from smtool.networks.transformer import Prediction


class Model(Protocol):
    """What a sampler calls: x (B, C, h, w) and network_time (B,) -> prediction (B, C, h, w).

    step_time: the network time (B,) at which the sampler's step began, where that is not `network_time` itself.
    """

    def __call__(self, x: Tensor, network_time: Tensor, /, *, step_time: Tensor | None = None) -> Tensor: ...


Network = Callable[[Tensor, Tensor, Tensor | None], Prediction]
"""(x, network_time, labels (B,) or None) -> its prediction."""


def guided(network: Network, labels: Tensor | None, *, null: int, scale: float, interval: tuple[float, float]) -> Model:
    """The network as samplers call it, with guidance u + scale (c - u) between its predictions c for `labels` and u for `null`.

    Guidance acts only where interval[0] <= time <= interval[1] and scale > 1; elsewhere c alone is computed. For all calls of a
    step that is decided by the time at which the step begins, as in REPA's samplers. The interval is in the network's own time
    (`Sampler.model` brings it there). Every sampler's drift is the same affine map of c and of u, so
    guiding the prediction is guiding the drift (facts 8.5). The network sees float32; the combination has the state's dtype.
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
        return without + scale * (with_label - without)

    return model if scale > 1 else conditional


def _within(interval: tuple[float, float], time: Tensor) -> bool:
    """One time for all samples, as samplers give it."""
    return interval[0] <= float(time[0]) <= interval[1]
