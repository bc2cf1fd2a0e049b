"""The health section: channels, rank, capacity, grid artefacts, shift errors and the range of values under fp16."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.pipelines.spectrum.decoding import exactly, images_at_once
from smtool.pipelines.spectrum.numbers import finite, numbers, or_reason
from smtool.spectrum.capacity import DISTORTIONS, BandMoments, Capacity, band_moments, capacity_at, channel_capacity
from smtool.spectrum.grid import GridReading, grid_artefacts, grid_statistics
from smtool.spectrum.rank import ChannelMoments, channel_moments, dead_channels, effective_rank
from smtool.spectrum.shift import latent_shift, shift_errors

SHIFTED_IMAGES = 16
WATCHED_IMAGES = 4
LARGEST_FP16 = 65504.0


@dataclass(frozen=True)
class LatentMoments:
    """What a pass remembers of posteriors, at raw scale: moments of their means, their own variance; `a + b` joins passes.

    variance: (C,) float64, posterior variance summed over positions. largest: of all means, in magnitude.
    """

    channels: ChannelMoments
    bands: BandMoments
    variance: Tensor
    largest: float

    @classmethod
    def of(cls, posterior: Posterior) -> "LatentMoments":
        mean, variance = posterior.mean, posterior.logvar.double().exp()
        return cls(channel_moments(mean), band_moments(mean), variance.sum((0, 2, 3)).cpu(), mean.abs().max().item())

    def __add__(self, other: "LatentMoments") -> "LatentMoments":
        return LatentMoments(
            self.channels + other.channels,
            self.bands + other.bands,
            self.variance + other.variance,
            max(self.largest, other.largest),
        )

    @property
    def noise(self) -> Tensor:
        """Posterior variance per channel, mean over images and positions: (C,)."""
        return self.variance / self.channels.num_positions


@torch.no_grad()
def health(codec: Tokenizer, images: Tensor, moments: LatentMoments, reconstructions: Tensor | None) -> dict[str, Any]:
    """All checks of one codec. moments: of all images of the pass; images (N, 3, H, W) and their decodings: of the first ones.

    The shift errors encode the first 16 images twice and decode them three times; hooks during four of them find the largest
    activation.
    """
    noise = None if codec.deterministic else moments.noise
    activations = LargestActivation()
    return {
        "channels": _channels(moments.channels, noise),
        "effective_rank": or_reason(lambda: asdict(effective_rank(moments.channels))),
        "capacity": _capacities(moments.bands),
        "channel_capacity": _channel_capacity(moments.bands, noise),
        "grid": _grid(images, reconstructions, codec.downsample),
        "shift": or_reason(lambda: _shifts(codec, images[:SHIFTED_IMAGES], activations)),
        "fp16": _fp16(codec, moments.largest, activations),
    }


@dataclass
class LargestActivation:
    """The largest magnitude that left each module of a network while it was watched, kept on the device until it is asked for."""

    by_layer: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self, network: nn.Module | None) -> Iterator[None]:
        """Hook every module within this block. Sums outside modules' outputs, such as attention scores, are not seen."""
        modules = [] if network is None else [(name, module) for name, module in network.named_modules() if name]
        hooks = [module.register_forward_hook(partial(self._see, name)) for name, module in modules]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def largest(self) -> tuple[float, str]:
        """The value and its layer; the first layer that is not finite, if there is one."""
        values = {name: value.item() for name, value in self.by_layer.items()}
        broken = [name for name, value in values.items() if finite(value) is None]
        layer = broken[0] if broken else max(values, key=lambda name: values[name])
        return values[layer], layer

    def _see(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            low, high = output.aminmax()      # vectorized, which the infinity norm is not
            value = torch.maximum(-low, high).float()
            self.by_layer[name] = torch.maximum(value, self.by_layer[name]) if name in self.by_layer else value


def _channels(moments: ChannelMoments, noise: Tensor | None) -> list[dict[str, Any]]:
    """mean and std of the posterior means; posterior_std: root mean square of the noise around them (None: there is none)."""
    noises = [None] * len(moments.mean) if noise is None else numbers(noise.sqrt())
    columns = (numbers(moments.mean), numbers(moments.std), dead_channels(moments).tolist(), noises)
    return [dict(zip(("mean", "std", "dead", "posterior_std"), row, strict=True)) for row in zip(*columns, strict=True)]


def _capacities(moments: BandMoments) -> list[dict[str, Any]] | dict[str, Any]:
    """Bits at each share of the variance that may be lost."""
    try:
        return [{"distortion": share} | _bits(capacity_at(moments, share), moments) for share in DISTORTIONS]
    except ValueError as error:
        return {"reason": str(error)}


def _channel_capacity(moments: BandMoments, noise: Tensor | None) -> dict[str, Any]:
    """Bits that pass the posterior's own noise."""
    if noise is None:
        return {"reason": "its encoder adds no noise"}
    return or_reason(lambda: _bits(channel_capacity(moments, noise), moments))


def _bits(found: Capacity, moments: BandMoments) -> dict[str, Any]:
    return {
        "bits_per_image": found.bits_per_image,
        "bits_per_channel": numbers(found.bits_per_channel),
        "bits_per_band": numbers(found.bits_per_band),
        "well_sampled": moments.well_sampled.tolist(),
    }


def _grid(images: Tensor, reconstructions: Tensor | None, period: int) -> dict[str, Any]:
    if reconstructions is None:
        return {"reason": "it has no decoder"}

    def measured() -> dict[str, Any]:
        found = grid_artefacts(grid_statistics(reconstructions, period), grid_statistics(images, period))
        return {"period": period, "images": len(images), "template": _reading(found.template), "phase": _reading(found.phase)}

    return or_reason(measured)


def _reading(found: GridReading) -> dict[str, float | None]:
    return {name: finite(getattr(found, name)) for name in ("reconstruction", "input", "excess")}


def _shifts(codec: Tokenizer, images: Tensor, activations: LargestActivation) -> dict[str, Any]:
    """Of the first images the activations are watched on the way."""
    batch = images_at_once(*images.shape[-2:])
    encode: Callable[[Tensor], Tensor] = exactly(lambda x: codec.encode(x).mode())
    if not codec.can_decode:
        with activations.watching(codec.network):
            error = latent_shift(encode, images, downsample=codec.downsample, batch=batch).value
        return {"images": len(images), "reconstruction": None, "whole_cell": None, "latent": finite(error)}
    measured = partial(shift_errors, encode, exactly(codec.decode), downsample=codec.downsample, batch=batch)
    watched = min(batch, WATCHED_IMAGES)
    with activations.watching(codec.network):
        found = measured(images[:watched])
    if len(images) > watched:
        found = found + measured(images[watched:])
    values = {name: finite(getattr(found, name)) for name in ("reconstruction", "whole_cell", "latent")}
    return {"images": len(images), **values}


def _fp16(codec: Tokenizer, largest_latent: float, activations: LargestActivation) -> dict[str, Any]:
    """Whether what was seen in float32 would fit half precision."""
    if codec.network is None or not activations.by_layer:
        return {"largest_latent": finite(largest_latent), "reason": "no layer could be watched"}
    value, layer = activations.largest()
    overflows = not max(value, largest_latent) <= LARGEST_FP16
    return {
        "largest_latent": finite(largest_latent),
        "largest_activation": finite(value),
        "layer": layer,
        "overflows": overflows,
    }
