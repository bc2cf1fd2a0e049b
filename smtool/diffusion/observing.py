"""Observation of a sampler: the state and the denoised estimate at the start of each step, without any effect on the samples."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from smtool.diffusion.guidance import Model
from smtool.diffusion.process import Process


@dataclass(frozen=True)
class Step:
    """What a sampler has at the start of a step.

    t: time of the process; state: x_t; denoised: the clean latents that the prediction implies. Both (B, C, h, w), read-only.
    """

    t: float
    state: Tensor
    denoised: Tensor


Observer = Callable[[Step], None]


def observed(process: Process, model: Model, times: Tensor, observe: Observer) -> Model:
    """The same model, which also reports the first call of every step, in order.

    times: the sampler's grid. Calls within a step, at another time than its `step_time`, are not reported: Heun's second one, and
    those of DPM-Solver between the ends of an interval.
    """
    remaining = iter(times[:-1])

    def model_and_report(x: Tensor, network_time: Tensor, *, step_time: Tensor | None = None) -> Tensor:
        prediction = model(x, network_time, step_time=step_time)
        if step_time is None or step_time[0] == network_time[0]:
            for t in remaining:
                if process.network_time(t).to(network_time) == network_time[0]:
                    observe(Step(float(t), x, process.denoised(prediction, x, t)))
                    break
        return prediction

    return model_and_report
