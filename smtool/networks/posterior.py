"""The posterior that an encoder returns, and statistics that normalize latents."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from smtool.devices import to_device

LOGVAR_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class Posterior:
    """A diagonal Gaussian over raw latents: mean and logvar (B, C, h, w), with logvar clamped to [-30, 20]."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_moments(cls, moments: Tensor) -> "Posterior":
        """Split moments (B, 2C, h, w) into mean and clamped logvar, float32 or float64 (released-code.md#posterior)."""
        mean, logvar = moments.to(torch.promote_types(moments.dtype, torch.float32)).chunk(2, dim=1)
        return cls(mean, logvar.clamp(*LOGVAR_RANGE))

    @classmethod
    def joined(cls, parts: Iterable["Posterior"]) -> "Posterior":
        """Concatenate several batches, in order."""
        means, logvars = zip(*((part.mean, part.logvar) for part in parts), strict=True)
        return cls(torch.cat(means), torch.cat(logvars))

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise; noise: standard normal, with the shape of the mean."""
        return self.mean + self.std * noise

    def mode(self) -> Tensor:
        return self.mean

    def kl(self) -> Tensor:
        """KL divergence from the standard normal, summed over C, h, w: (B,), in nats."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar).flatten(1).sum(1)


@dataclass(frozen=True)
class LatentStats:
    """Statistics that normalize raw latents: a mean and std per channel, or one of each for all channels ("scalar").

    mean, std: (C,) float32 for "channel", (1,) for "scalar". count: number of measured samples; data: digest of their data.
    residual: mean of normalized latents of these data, with the shape of `mean`: 0 if `mean` is the measured mean, measured
    mean / std if latents are only divided by std (scalar statistics of the released trainers), None if unknown.
    """

    kind: Literal["channel", "scalar"]
    mean: Tensor
    std: Tensor
    count: int
    data: str
    residual: Tensor | None = None

    def normalize(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) -> normalized latents."""
        return (latents - self._broadcast(self.mean, latents)) / self._broadcast(self.std, latents)

    def denormalize(self, latents: Tensor) -> Tensor:
        """Normalized latents (B, C, h, w) -> raw latents."""
        return latents * self._broadcast(self.std, latents) + self._broadcast(self.mean, latents)

    def to_metadata(self) -> dict[str, object]:
        residual = {} if self.residual is None else {"residual": self.residual.tolist()}
        mean, std = self.mean.tolist(), self.std.tolist()
        return {"kind": self.kind, "mean": mean, "std": std, "count": self.count, "data": self.data, **residual}

    @classmethod
    def from_metadata(cls, value: dict[str, object]) -> "LatentStats":
        """Read the result of `to_metadata`. In old files without `residual`, it is 0 for measured statistics.

        Raises ValueError, TypeError or KeyError for other values.
        """
        mean, std = (_vector(value[key]) for key in ("mean", "std"))
        count = int(value["count"])  # type: ignore[call-overload]
        residual = _vector(value["residual"]) if "residual" in value else torch.zeros_like(mean) if count else None
        if value["kind"] not in ("channel", "scalar") or count < 0:
            raise ValueError(f"statistics of kind {value['kind']!r} over {count} samples")
        if mean.ndim != 1 or mean.shape != std.shape or (residual is not None and residual.shape != mean.shape):
            raise ValueError(f"statistics of the shapes {tuple(mean.shape)} and {tuple(std.shape)}")
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError("statistics that are not finite, or a std that is not positive")
        return cls(value["kind"], mean, std, count, str(value["data"]), residual)

    def _broadcast(self, values: Tensor, latents: Tensor) -> Tensor:
        return to_device(values.to(latents.dtype), latents.device).view(1, -1, 1, 1)


def _vector(values: Any) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float32)
