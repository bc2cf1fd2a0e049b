"""What an encoder returns, and the statistics that normalize it."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smtool.devices import moved

LOGVAR_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class Posterior:
    """A diagonal Gaussian over raw latents: mean and logvar (B, C, h, w), logvar already within [-30, 20]."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_moments(cls, moments: Tensor) -> "Posterior":
        """Split moments (B, 2C, h, w) into mean and clamped logvar, float32 at least (facts section 1.4)."""
        mean, logvar = moments.to(torch.promote_types(moments.dtype, torch.float32)).chunk(2, dim=1)
        return cls(mean, logvar.clamp(*LOGVAR_RANGE))

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise; noise is standard normal, of the mean's shape."""
        return self.mean + self.std * noise

    def mode(self) -> Tensor:
        return self.mean

    def kl(self) -> Tensor:
        """KL divergence to the standard normal, summed over C, h, w: (B,), in nats."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar).flatten(1).sum(1)


@dataclass(frozen=True)
class LatentStats:
    """What raw latents are normalized by: one mean and std per channel, or one of each for all ("scalar").

    mean, std: (C,) float32 for "channel", (1,) for "scalar". count: samples measured; data: digest of the data they came from.
    """

    kind: Literal["channel", "scalar"]
    mean: Tensor
    std: Tensor
    count: int
    data: str

    def normalize(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) -> normalized ones."""
        return (latents - self._broadcast(self.mean, latents)) / self._broadcast(self.std, latents)

    def denormalize(self, latents: Tensor) -> Tensor:
        """Normalized latents (B, C, h, w) -> raw ones."""
        return latents * self._broadcast(self.std, latents) + self._broadcast(self.mean, latents)

    def to_metadata(self) -> dict[str, object]:
        return {"kind": self.kind, "mean": self.mean.tolist(), "std": self.std.tolist(), "count": self.count, "data": self.data}

    @classmethod
    def from_metadata(cls, value: dict[str, object]) -> "LatentStats":
        mean, std = (torch.tensor(value[key], dtype=torch.float32) for key in ("mean", "std"))
        return cls(value["kind"], mean, std, int(value["count"]), str(value["data"]))  # type: ignore[arg-type, call-overload]

    def _broadcast(self, values: Tensor, latents: Tensor) -> Tensor:
        return moved(values.to(latents.dtype), latents.device).view(1, -1, 1, 1)
