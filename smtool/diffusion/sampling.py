"""Sampling of normalized latents from noise: the `[sampler]` table and the function that runs the sampler."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from smtool.config import Config
from smtool.diffusion.ddpm import DDPM, NUM_STEPS
from smtool.diffusion.exposure import LARGEST_RATIO, epsilon_scaled, scales_at
from smtool.diffusion.flow import Flow
from smtool.diffusion.guidance import Model, Network, guided, in_precision
from smtool.diffusion.observing import Observer, observed
from smtool.diffusion.process import Process
from smtool.diffusion.samplers import SAMPLERS, Method, StepNoise, even_times
from smtool.diffusion.vp_sde import VPSDE
from smtool.training.precision import Precision

if TYPE_CHECKING:
    SamplerName = str
else:      # a Literal, so that the error for an unknown name lists all names
    SamplerName = Literal[tuple(SAMPLERS)]


class Sampler(Config):
    """How samples are drawn. Each step needs one model call; steps of heun except the last need two.

    ddim, dpm-solver++, euler and heun work with every process.
    """

    kind: SamplerName = Field(
        "ddim",
        description="sampler; euler-maruyama needs a flow; dpm-solver-fast, euler-maruyama-sde and euler-maruyama-ode need "
        "vp-sde; euler-maruyama and euler-maruyama-sde add noise in each step, the others are deterministic",
    )
    steps: int = Field(100, ge=1, description="number of steps; dpm-solver-fast: number of model calls")
    end_time: float = Field(
        0.04,
        gt=0,
        le=0.9,
        description="euler-maruyama only: start time of the last step, which adds no noise and damps bands of low variance",
    )
    stop_time: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="ddim, dpm-solver++ and euler only: time of the even grid, before the shift, at which sampling stops; 0: the "
        "data; RAE's code has 0.001, and takes the state at that time as the sample",
    )
    cfg_scale: float = Field(
        1.0, ge=1, description="scale of guidance, by the null class unless `sample` gets another model as guide; 1: no guidance"
    )
    cfg_interval: tuple[float, float] = Field(
        (0.0, 1.0), description="interval of times t with guidance, from 0 (data) to 1 (noise)"
    )
    cfg_channels: int = Field(
        0, ge=0, description="guide the first so many latent channels only, as LightningDiT's code does with 3 of 32; 0: all"
    )
    epsilon_scale: float = Field(
        1.0,
        gt=0,
        description="epsilon scaling: divide the noise that a prediction implies by this; a little above 1 reduces exposure bias "
        "(ADM-ES, arXiv 2308.15321: 1.0006 to 1.02, more for fewer steps); 1: none",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="precision of the transformer: fp32, or autocast; the sampler computes in float64, the decoder in fp32. "
        '"auto": on a GPU that of the transformer\'s training (`precision`), else fp32',
    )

    @property
    def method(self) -> Method:
        return SAMPLERS[self.kind]

    @property
    def model_calls(self) -> int:
        """Model calls for one sample; a call with guidance counts once."""
        return self.method.model_calls(self.steps)

    @property
    def network_precision(self) -> Precision:
        """The precision, with fp32 for "auto", which `smtool.inference.precision` states for a model and a device."""
        return "fp32" if self.precision == "auto" else self.precision

    def problems(
        self,
        process: Flow | DDPM | VPSDE,
        num_classes: int,
        *,
        null_class: bool = True,
        latent_shape: tuple[int, int, int] | None = None,
        guide: bool = False,
    ) -> Iterator[tuple[str, str]]:
        """(key, sentence) for each value that is impossible with this process and network.

        null_class: whether it has one; latent_shape: (C, h, w), None if not known yet; guide: whether another network guides.
        """
        if latent_shape is not None and self.cfg_channels > latent_shape[0]:
            yield "cfg_channels", f"must be at most {latent_shape[0]}, the channels of the latents, but is {self.cfg_channels}"
        if self.stop_time and not self.method.stops:
            able = ", ".join(name for name, method in SAMPLERS.items() if method.stops)
            yield "stop_time", f"must be 0 for {self.kind}, but is {self.stop_time:g}; these can stop: {able}"
        low, high = self.cfg_interval
        if not 0 <= low <= high <= 1:
            yield "cfg_interval", f"must be two times 0 <= low <= high <= 1, but is [{low}, {high}]"
        if self.cfg_scale > 1 and not guide and not num_classes:
            yield "cfg_scale", f"must be 1 for a network without classes, but is {self.cfg_scale}"
        elif self.cfg_scale > 1 and not guide and not null_class:
            yield "cfg_scale", f"must be 1 for a network without a null class, but is {self.cfg_scale}"
        if process.kind not in self.method.processes:
            (needed,) = self.method.processes
            yield "kind", f'{self.kind} needs process.kind = "{needed}"; "ddim" works with "{process.kind}"'
        if isinstance(process, DDPM) and self.steps > NUM_STEPS:
            yield "steps", f"must be at most {NUM_STEPS}, the noise levels of ddpm, but is {self.steps}"
        if self.epsilon_scale != 1 and isinstance(process, Flow) and not self._scales(process, latent_shape):
            found = f"but is {self.epsilon_scale:g}: no step begins at sigma / alpha <= {LARGEST_RATIO:g}; use more steps"
            yield "epsilon_scale", f"must be 1 for a flow with steps = {self.steps}, {found}"

    def _scales(self, flow: Flow, latent_shape: tuple[int, int, int] | None) -> bool:
        """Whether epsilon scaling acts on a flow: the last step is the first candidate, and more steps make it no earlier."""
        if flow.kind not in self.method.processes or (flow.shift == "dimension" and latent_shape is None):
            return True
        built, few = flow.build(latent_shape), self.model_copy(update={"steps": min(self.steps, NUM_STEPS)})
        return scales_at(built, few.times(built)[-2])

    def times(self, process: Process) -> Tensor:
        """The time grid, (steps + 1,) float64, from noise to data."""
        if self.stop_time:
            return even_times(process, self.steps, self.stop_time)
        return self.method.times(process, self.steps, self.end_time)

    def model(
        self, process: Process, network: nn.Module, *, labels: Tensor | None, null: int, guide: Network | None = None,
        device: str | None = None,
    ) -> Model:
        """The network with this sampler's guidance and `network_precision`.

        labels: (B,) int64; null: index of the null class; guide: see `guided`; device: of the networks, if the sampler's state
        and the labels are on another.
        """
        low, high = (float(process.network_time(torch.tensor(t, dtype=torch.float64))) for t in self.cfg_interval)
        return guided(
            in_precision(network, self.network_precision, device),
            labels,
            null=null,
            scale=self.cfg_scale,
            interval=(low, high),
            channels=self.cfg_channels,
            guide=None if guide is None else in_precision(guide, self.network_precision, device),
        )


@torch.no_grad()
def sample(
    process: Process,
    model: Model,
    noise: Tensor,
    sampler: Sampler,
    *,
    step_noise: StepNoise,
    observe: Observer | None = None,
) -> Tensor:
    """Normalized latents (B, C, h, w) from standard normal noise of that shape and dtype, computed in float64.

    step_noise(i): standard normal noise (B, C, h, w) of step i, used by stochastic samplers only. The caller seeds it and
    `noise` per sample, so that a sample does not depend on its batch. observe: called at the start of each step with its float64
    state and denoised latents; it does not change the samples.
    """
    times = sampler.times(process)
    if sampler.epsilon_scale != 1:
        model = epsilon_scaled(process, model, sampler.epsilon_scale)
    if observe is not None:
        model = observed(process, model, times, observe)
    return sampler.method.run(process, model, noise.double(), times, step_noise).to(noise.dtype)
