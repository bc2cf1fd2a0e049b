"""The posterior that an encoder returns, and statistics that normalize latents."""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smtool.devices import in_float64, to_device
from smtool.spectrum.recolour import Recolouring

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

    "patch" statistics are those of FLUX.2: a mean and std for each channel and each of the four cells of its 2x2 patches, in the
    order of `torch.nn.functional.pixel_unshuffle`. They need latents with even sides.
    "element" statistics are those of RAE: a mean and std for each element of a latent, which then has one size only.
    "spectral" statistics also have a recolouring: after mean and std per channel, a filter gives the latents a chosen spectrum.
    mean, std: (C,) float32, (1,) for "scalar", (4 C,) for "patch", (C, h, w) for "element". count: number of measured samples;
    data: digest of their data.
    residual: mean of normalized latents of these data, one for each of their `groups`: 0 if `mean` is the measured mean, measured
    mean / std if latents are only divided by std (scalar statistics of the released trainers), None if unknown.
    """

    kind: Literal["channel", "scalar", "spectral", "patch", "element"]
    mean: Tensor
    std: Tensor
    count: int
    data: str
    residual: Tensor | None = None
    recolouring: Recolouring | None = None

    def normalize(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) -> normalized latents. Raises ValueError for sizes that the statistics do not fit."""
        if self.recolouring is None:
            return self.standardize(latents)
        return self.recolouring.apply(self.standardize(in_float64(latents))).to(latents)

    def denormalize(self, latents: Tensor) -> Tensor:
        """Normalized latents (B, C, h, w) -> raw latents. Raises ValueError for sizes that the statistics do not fit."""
        if self.recolouring is None:
            return self._restore(latents)
        return self._restore(self.recolouring.undo(in_float64(latents))).to(latents)

    def standardize(self, latents: Tensor) -> Tensor:
        """(z - mean) / std of raw latents (B, C, h, w), without a recolouring."""
        return (latents - self._broadcast(self.mean, latents)) / self._broadcast(self.std, latents)

    @property
    def name(self) -> str:
        """The kind, with the law of a recolouring."""
        return self.kind if self.recolouring is None else f"spectral (flatten = {self.recolouring.flatten})"

    def refuse_odd(self, height: int, width: int) -> None:
        """Raise ValueError for latents (h, w) without whole 2x2 patches, if the statistics are of such."""
        if self.kind == "patch" and (height % 2 or width % 2):
            raise ValueError(f"latents of {height}x{width} cells have no whole 2x2 patches, which their statistics are of")

    def fits(self, shape: tuple[int, int, int]) -> bool:
        """Whether they are statistics of latents (C, h, w)."""
        if self.kind == "element":
            return tuple(self.mean.shape) == shape
        return len(self.mean) == {"scalar": 1, "patch": 4 * shape[0]}.get(self.kind, shape[0])

    def groups(self, latents: Tensor) -> Tensor:
        """The values of latents (B, C, h, w) that share a mean and std: (B, G, P), G of (1,), (C,) or (4 C,) for `kind`.

        Those of "element" are grouped by channel, over which their normalized values have mean 0 and variance 1 too.
        """
        if self.kind == "scalar":
            return latents.flatten(1).unsqueeze(1)
        return (F.pixel_unshuffle(latents, 2) if self.kind == "patch" else latents).flatten(2)

    def per_channel(self) -> "LatentStats":
        """The mean and std over the whole channels for "patch" and "element"; other kinds unchanged."""
        if self.kind not in ("patch", "element"):
            return self
        rows = (-1, 4) if self.kind == "patch" else (len(self.mean), -1)
        mean, std = self.mean.double().reshape(rows), self.std.double().reshape(rows)
        whole = (std.square().mean(1) + mean.var(1, correction=0)).sqrt()
        return LatentStats("channel", mean.mean(1).float(), whole.float(), self.count, self.data)

    def to_metadata(self) -> dict[str, object]:
        residual = {} if self.residual is None else {"residual": self.residual.tolist()}
        mean, std = (_packed(values) if self.kind == "element" else values.tolist() for values in (self.mean, self.std))
        recolouring = {} if self.recolouring is None else {"recolouring": self.recolouring.to_metadata()}
        return {"kind": self.kind, "mean": mean, "std": std, "count": self.count, "data": self.data, **residual, **recolouring}

    @classmethod
    def from_metadata(cls, value: dict[str, Any]) -> "LatentStats":
        """Read the result of `to_metadata`. In old files without `residual`, it is 0 for measured statistics.

        Raises ValueError, TypeError or KeyError for other values.
        """
        of_elements = value["kind"] == "element"
        mean, std = (_unpacked(value[key]) if of_elements else _vector(value[key]) for key in ("mean", "std"))
        count = int(value["count"])
        residual = _vector(value["residual"]) if "residual" in value else torch.zeros_like(mean) if count else None
        recolouring = Recolouring.from_metadata(value["recolouring"]) if "recolouring" in value else None
        if value["kind"] not in ("channel", "scalar", "spectral", "patch", "element") or count < 0:
            raise ValueError(f"statistics of kind {value['kind']!r} over {count} samples")
        expected = mean.shape[:1]
        if mean.ndim != 1 + 2 * of_elements or mean.shape != std.shape or (residual is not None and residual.shape != expected):
            raise ValueError(f"statistics of the shapes {tuple(mean.shape)} and {tuple(std.shape)}")
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError("statistics that are not finite, or a std that is not positive")
        return cls(value["kind"], mean, std, count, str(value["data"]), residual, recolouring)

    def _restore(self, latents: Tensor) -> Tensor:
        return latents * self._broadcast(self.std, latents) + self._broadcast(self.mean, latents)

    def _broadcast(self, values: Tensor, latents: Tensor) -> Tensor:
        if self.kind == "element" and values.shape != latents.shape[-3:]:
            sizes = ("x".join(map(str, shape)) for shape in (values.shape, latents.shape[-3:]))
            raise ValueError("statistics of the elements of latents {}, which do not fit latents {}".format(*sizes))
        values = to_device(values.to(latents.dtype), latents.device)
        values = values[None] if self.kind == "element" else values.view(1, -1, 1, 1)
        if self.kind != "patch":
            return values
        height, width = latents.shape[-2:]
        self.refuse_odd(height, width)
        return F.pixel_shuffle(values, 2).repeat(1, 1, height // 2, width // 2)


def _packed(values: Tensor) -> dict[str, Any]:
    """A tensor as its shape and the base64 text of its float32 numbers, lowest byte first, a fourth of a list of decimals."""
    return {"shape": list(values.shape), "float32": b64encode(values.cpu().float().numpy().astype("<f4").tobytes()).decode()}


def _unpacked(value: dict[str, Any]) -> Tensor:
    numbers = np.frombuffer(b64decode(value["float32"], validate=True), "<f4").astype(np.float32)
    return torch.from_numpy(numbers).reshape([int(side) for side in value["shape"]])


def _vector(values: Any) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float32)
