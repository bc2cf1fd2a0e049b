"""Exposure bias: a sampler shows the network states with errors of earlier steps, which training never showed it.

Two corrections: noisier inputs in training (Ning et al., arXiv 2301.11706), and a smaller noise in sampling (Ning et al., arXiv
2308.15321). Facts: released-code.md#input-perturbation; facts and our derivation for flow: released-code.md#epsilon-scaling.
"""

from dataclasses import replace

from torch import Tensor

from smtool.diffusion.flow import FlowProcess
from smtool.diffusion.guidance import Model
from smtool.diffusion.process import Noised, Process, over_samples

LARGEST_RATIO = 14.6
"""A flow's predicted noise is scaled at noise-to-data ratios sigma / alpha up to this, that of ddpm's first step. Without a
bound, the variance of samples is infinite, because a flow starts at an infinite ratio."""


def perturbed(process: Process, noised: Noised, perturbation: Tensor) -> Noised:
    """Training examples with x_t = alpha x + sigma (noise + gamma perturbation) and the same target, gamma of the process.

    perturbation: (B, C, h, w), standard normal. For Gaussian data, the best prediction of the noise from pure noise is then
    x_t / (1 + gamma^2).
    """
    sigma = process.alpha_sigma(over_samples(noised.t, noised.x_t))[1]
    return replace(noised, x_t=noised.x_t + sigma * process.input_perturbation * perturbation.to(noised.x_t))


def epsilon_scaled(process: Process, model: Model, scale: float) -> Model:
    """The model with a prediction that implies the noise of the original one, divided by `scale`, at the same x_t.

    For "eps" that is prediction / scale. For "v" on a linear path it is v + (1 / scale - 1) noise / (1 - t), noise = x_t +
    (1 - t) v. The data estimate changes with it: (x_t - sigma noise / scale) / alpha, as released. A flow's predictions are left
    as they are in steps that begin above LARGEST_RATIO; for all calls of a step, its start decides, as for guidance.
    """

    def scaled(x: Tensor, network_time: Tensor, *, step_time: Tensor | None = None) -> Tensor:
        prediction = model(x, network_time, step_time=step_time)
        start = process.time_of_network((network_time if step_time is None else step_time)[0])
        if not scales_at(process, start):
            return prediction
        t = process.time_of_network(network_time)
        return process.prediction_of(process.noise_of(prediction, x, t) / scale, x, t)

    return scaled


def scales_at(process: Process, t: Tensor) -> bool:
    """Whether epsilon scaling acts in a step from time t, a scalar."""
    if not isinstance(process, FlowProcess):
        return True
    alpha, sigma = process.alpha_sigma(t)
    return bool(sigma <= LARGEST_RATIO * alpha)
