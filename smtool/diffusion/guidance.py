"""Guidance within an interval of time, by the null class or by a weaker model; the precision of networks while sampling."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from smtool.networks.transformer import Prediction
from smtool.training.precision import Precision, autocast


class Model(Protocol):
    """The function that a sampler calls: x (B, C, h, w) and network_time (B,) -> prediction (B, C, h, w).

    step_time: network time (B,) at the start of the sampler's step; None: `network_time`. On the CPU, where it is read.
    """

    def __call__(self, x: Tensor, network_time: Tensor, /, *, step_time: Tensor | None = None) -> Tensor: ...


Network = Callable[[Tensor, Tensor, Tensor | None], Prediction]
"""(x, network_time, labels (B,) or None) -> the network's prediction."""


def in_precision(network: Network, precision: Precision, device: str | None = None) -> Network:
    """The network in autocast to that precision. device: the network's, if its inputs and outputs are on another."""
    if precision == "fp32" and device is None:
        return network

    def call(x: Tensor, time: Tensor, labels: Tensor | None) -> Prediction:
        there = x.device if device is None else torch.device(device)
        inputs = (x.to(there), time.to(there), None if labels is None else labels.to(there))
        with autocast(precision, there.type):
            return Prediction(network(*inputs).output.to(x.device))

    return call


def guided(
    network: Network,
    labels: Tensor | None,
    *,
    null: int,
    scale: float,
    interval: tuple[float, float],
    channels: int = 0,
    guide: Network | None = None,
) -> Model:
    """A Model with guidance u + scale (c - u), where c is the network's prediction for `labels`.

    u is the network's prediction for `null` (classifier-free guidance), or that of `guide`, a weaker model, for the same labels
    (autoguidance, arXiv 2406.02507, Eq. 3). channels: guide the first so many channels, and take c for the others, as
    LightningDiT's released code does (released-code.md#lightningdit); 0: all. Guidance is used only if
    interval[0] <= time <= interval[1] and scale > 1; otherwise only c is computed. For all calls of a step, the time at the start
    of the step decides, as in REPA's samplers. The interval is in network time (`Sampler.model` converts it). Each sampler's
    drift is an affine function of the prediction, so guiding the prediction equals guiding the drift
    (released-code.md#euler-maruyama). The networks get float32 inputs; the result has x's dtype.
    Raises ValueError if scale > 1 without labels and without a guide.
    """
    if labels is None and guide is None and scale > 1:
        raise ValueError(f"guidance of scale {scale} needs labels, but this network is unconditional; scale 1 works")

    def conditional(x: Tensor, time: Tensor, *, step_time: Tensor | None = None) -> Tensor:
        return network(x.float(), time.float(), labels).output.to(x.dtype)

    def both(x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """(c, u)"""
        if guide is not None:
            return conditional(x, time), guide(x.float(), time.float(), labels).output.to(x.dtype)
        assert labels is not None
        twice = torch.cat([labels, torch.full_like(labels, null)])
        output = network(torch.cat([x.float()] * 2), torch.cat([time.float()] * 2), twice).output.to(x.dtype)
        with_label, without = output.chunk(2)
        return with_label, without

    def model(x: Tensor, time: Tensor, *, step_time: Tensor | None = None) -> Tensor:
        if not _within(interval, time if step_time is None else step_time):
            return conditional(x, time)
        strong, weak = both(x, time)
        every = weak + scale * (strong - weak)
        return torch.cat([every[:, :channels], strong[:, channels:]], 1) if channels else every

    return model if scale > 1 else conditional


def _within(interval: tuple[float, float], time: Tensor) -> bool:
    """Whether the time, equal for all samples, is in the interval."""
    return interval[0] <= float(time[0]) <= interval[1]
