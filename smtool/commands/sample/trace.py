"""Spectra of samples as they emerge: the content of trace.json, and its measurement over the steps of a sampler."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from smtool.config import Config
from smtool.data.batches import to_uint8
from smtool.diffusability.sections.parts import Matrix, Reason, Row, numbers
from smtool.diffusion import Sampler, Step
from smtool.inference.diffusion_model import DiffusionModel
from smtool.inference.generate import sample_latents
from smtool.inference.sampling import Sampling
from smtool.spectrum import PHYSICAL, crossing_time, radial_power, ring_frequency
from smtool.spectrum.band_agreement import BandAgreement, band_agreement, settled_step
from smtool.spectrum.psd import Size
from smtool.spectrum.radial_bands import SMALLEST_SIDE

SHARE = 0.9
"""A band is settled once this share of its final power is explained in all later steps."""
NUM_TRACED = 16
"""Largest number of traced images: every one is decoded at every step."""
NUM_PICTURES, NUM_TIMES = 2, 7
"""Images that are shown, and the number of steps at which they are."""


class Bands(Config):
    """Denoised estimates over the steps (rows), by PHYSICAL ring (columns), against the final samples; without means.

    size: of the grid; power: of the estimates, final_power: of the final samples, both per cell; explained: fraction of the final
    power, 1 - squared error / final power; correlation: with the final samples. settled: noise level of the first step from which
    explained stays at or above the share; null where only the final sample is settled.
    """

    size: Size
    cycles_per_side: Row
    cells: list[int]
    power: Matrix
    final_power: Row
    explained: Matrix
    correlation: Matrix
    settled: Row


class LatentBands(Bands):
    """Bands of normalized latents.

    state_power: of the sampler's state x_t; crossing: noise level at which the SNR of a ring is 1, from final_power.
    """

    state_power: Matrix
    crossing: Row


class Trace(Config):
    """The content of trace.json, version "smtool.trace/1".

    label: of the run; images: number of traced ones, the first samples of the folder; share: see `Bands`; times: of the process,
    at the start of each step; noise: the noise level sigma / (alpha + sigma) there, which is the t of a linear flow with the same
    signal-to-noise ratio, so that processes can be compared. pixels: of the decoded estimates, unclamped; latents: of the
    normalized ones. decodings: number of images decoded; seconds: of the trace.
    """

    schema_: Literal["smtool.trace/1"] = Field("smtool.trace/1", alias="schema")
    label: str
    sampling: Sampling
    process: str
    images: int
    image_size: tuple[int, int]
    share: float
    times: Row
    noise: Row
    pixels: Bands | Reason
    latents: LatentBands | Reason
    decodings: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The content of trace.json: rows rounded to six significant digits."""
        return self.model_dump(mode="json", by_alias=True) | {"sampling": self.sampling.to_json()}


@dataclass(frozen=True)
class Traced:
    """A trace and pictures of it: uint8 (images, columns, C, H, W), the last column final; shown: noise level of each column."""

    trace: Trace
    pictures: Tensor
    shown: Sequence[float]


@dataclass(frozen=True)
class _Course:
    """A sampler's way from noise to samples (final).

    times: (steps,); denoised: (steps, B, C, h, w); state_power: (steps, B, rings); final: (B, C, h, w). On the CPU.
    """

    times: Tensor
    denoised: Tensor
    state_power: Tensor
    final: Tensor


@torch.no_grad()
def trace_sampling(
    model: DiffusionModel,
    sampler: Sampler,
    *,
    label: str,
    sampling: Sampling,
    images: int,
    labels: Sequence[int] | None,
    seed: int,
    batch: int,
    device: str,
    report: Callable[[int, int], None],
) -> Traced:
    """Sample the first `images` samples again and measure the denoised estimate of every step.

    labels: the class of each image, None for an unconditional model; batch: images at once; report: called with the number of
    decoded images and their total. The denoised latents of all steps are kept in memory, the decoded images are not.
    """
    began = time.monotonic()
    parts = [range(start, min(start + batch, images)) for start in range(0, images, batch)]
    course = _joined([_course(model, sampler, part, labels, seed, device) for part in parts])
    alpha, sigma = model.process.alpha_sigma(course.times)
    noise = sigma / (alpha + sigma)
    total = images * (len(noise) + 1)
    final = _decoded(model, course.final, batch, device)
    shown = sorted(set(torch.linspace(0, len(noise) - 1, NUM_TIMES).round().long().tolist()))
    agreements, pictures = [], []
    for number, estimate in enumerate(course.denoised):
        decoded = _decoded(model, estimate, batch, device)
        agreements.append(_agreement(decoded, final))
        if number in shown:
            pictures.append(to_uint8(decoded[:NUM_PICTURES]))
        report(images * (number + 2), total)
    pictures.append(to_uint8(final[:NUM_PICTURES]))
    height, width = final.shape[-2:]
    trace = Trace(
        label=label, sampling=sampling, process=model.tables.process.kind, images=images, image_size=(height, width), share=SHARE,
        times=numbers(course.times), noise=numbers(noise), pixels=_bands(agreements, noise), latents=_latent_bands(course, noise),
        decodings=total, seconds=round(time.monotonic() - began, 2),
    )
    return Traced(trace, torch.stack(pictures, 1), [*noise[shown].tolist(), 0.0])


def _course(
    model: DiffusionModel, sampler: Sampler, part: range, labels: Sequence[int] | None, seed: int, device: str
) -> _Course:
    """Sample a part of the images and keep what the sampler has at the start of each step, in float32 on the CPU."""
    times: list[float] = []
    denoised, powers = [], []

    def keep(step: Step) -> None:
        times.append(step.t)
        denoised.append(step.denoised.float().cpu())
        powers.append(radial_power(step.state, PHYSICAL).cpu() if _has_rings(step.state) else step.state.new_zeros(len(part), 0))

    classes = None if labels is None else torch.tensor([labels[index] for index in part], device=device)
    final = sample_latents(model, part, seed=seed, sampler=sampler, labels=classes, device=device, observe=keep)
    return _Course(torch.tensor(times, dtype=torch.float64), torch.stack(denoised), torch.stack(powers), final.cpu())


def _joined(parts: Sequence[_Course]) -> _Course:
    """The parts as one set of images."""
    return _Course(
        parts[0].times,
        torch.cat([part.denoised for part in parts], 1),
        torch.cat([part.state_power for part in parts], 1),
        torch.cat([part.final for part in parts]),
    )


def _decoded(model: DiffusionModel, latents: Tensor, batch: int, device: str) -> Tensor:
    """Images (B, C, H, W) on the CPU, unclamped, of normalized latents."""
    parts = [model.autoencoder.decode(model.stats.denormalize(part.to(device))).cpu() for part in latents.split(batch)]
    return torch.cat(parts)


def _has_rings(x: Tensor) -> bool:
    return min(x.shape[-2:]) >= SMALLEST_SIDE


def _agreement(estimates: Tensor, final: Tensor) -> BandAgreement | None:
    return band_agreement(estimates, final) if _has_rings(final) else None


def _bands(agreements: Sequence[BandAgreement | None], noise: Tensor) -> Bands | Reason:
    """The measures of one agreement per step."""
    found = [one for one in agreements if one is not None]
    if not found:
        return Reason(reason=f"fewer than {SMALLEST_SIDE}x{SMALLEST_SIDE} cells have no rings of frequencies")
    size = found[0].size
    frequency, count = ring_frequency(*size, PHYSICAL)
    explained = torch.stack([one.explained for one in found])
    at_end = torch.cat([noise, noise.new_full((1,), torch.nan)])      # not before the final sample: null
    return Bands(
        size=size, cycles_per_side=numbers(frequency * min(size)), cells=[int(cells) for cells in count],
        power=[numbers(one.power) for one in found], final_power=numbers(found[0].final),
        explained=[numbers(row) for row in explained], correlation=[numbers(one.correlation) for one in found],
        settled=numbers(at_end[settled_step(explained, SHARE)]),
    )


def _latent_bands(course: _Course, noise: Tensor) -> LatentBands | Reason:
    agreements = [_agreement(estimate, course.final) for estimate in course.denoised]
    bands = _bands(agreements, noise)
    if isinstance(bands, Reason):
        return bands
    power = torch.tensor(bands.final_power, dtype=torch.float64)
    return LatentBands(
        **dict(bands), state_power=[numbers(row) for row in course.state_power.mean(1)], crossing=numbers(crossing_time(power))
    )
