"""Diffusion on latents: processes (flow, ddpm, vp-sde), samplers, guidance, and alignment of tokens with a teacher's features."""

from smtool.diffusion.alignment import Alignment, AnyAlignment, IRepa, Repa, RepaDog, WeightedAlignment
from smtool.diffusion.ddpm import DDPM, DDPMProcess
from smtool.diffusion.exposure import perturbed
from smtool.diffusion.flow import Flow, FlowProcess
from smtool.diffusion.guidance import guided
from smtool.diffusion.observing import Observer, Step
from smtool.diffusion.process import Noised, Process
from smtool.diffusion.sampling import Sampler, sample
from smtool.diffusion.vp_sde import VPSDE, VPSDEProcess
from smtool.diffusion.warmup import Warmup

__all__ = [
    "DDPM",
    "VPSDE",
    "Alignment",
    "AnyAlignment",
    "DDPMProcess",
    "Flow",
    "FlowProcess",
    "IRepa",
    "Noised",
    "Observer",
    "Process",
    "Repa",
    "RepaDog",
    "Sampler",
    "Step",
    "VPSDEProcess",
    "Warmup",
    "WeightedAlignment",
    "guided",
    "perturbed",
    "sample",
]
