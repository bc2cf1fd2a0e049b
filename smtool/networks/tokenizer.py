"""The interface of all tokenizers: models or functions that encode images to latents and usually decode them."""

from collections.abc import Mapping
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smtool.config import Config
from smtool.image_shape import ImageSize
from smtool.networks.posterior import LatentStats, Posterior


class Tokenizer(nn.Module):
    """Images (B, channels, H, W) in [-1, 1] -> posterior over raw latents (B, C, h, w), and back if it has a decoder.

    label: short name; source: the name with which it was opened; downsample: image side / latent side; stats: published or
    stored statistics, None if unknown; deterministic: the posterior has zero variance; image_size: the only size of images that
    it accepts, None for any multiple of downsample; image_channels: of the images, 1 to 4; recipe: {} unless smtool trained it;
    learned_from: names of the frozen networks in its training losses; config: table from which smtool rebuilds it (with the
    weights, if any), None if another library runs it; network: the module that computes, for hooks on its layers, None for plain
    arithmetic; channel_groups: groups of channels for `smtool.spectrum.entropy_weights`, None for one group; scaled_by_bound:
    raw latents are already divided by a bound, and may be used without further normalization; encodes_in: precision in which it
    encodes as a frozen network (`smtool.tokenizers.encode`).
    """

    label: str = ""
    source: str = ""
    downsample: int
    latent_channels: int
    stats: LatentStats | None = None
    deterministic: bool = False
    image_size: ImageSize | None = None
    image_channels: int = 3
    config: Config | None = None
    network: nn.Module | None
    channel_groups: tuple[tuple[int, int], ...] | None = None
    scaled_by_bound: bool = False
    encodes_in: Literal["fp32", "bf16"] = "fp32"

    def __init__(self) -> None:
        super().__init__()
        self.recipe: Mapping[str, Any] = {}
        self.learned_from: tuple[str, ...] = ()

    @property
    def can_decode(self) -> bool:
        return True

    @property
    def architecture(self) -> str:
        """One line about the network."""
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """sha256 over the weights and all other settings that determine the function."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """The device on which images are encoded."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    def encode(self, images: Tensor) -> Posterior:
        """Images (B, channels, H, W) in [-1, 1] -> posterior over raw latents (B, C, H / downsample, W / downsample)."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) -> images (B, channels, h * downsample, w * downsample), not clamped."""
        raise ValueError(f"{self.label} only encodes: it has no decoder")

    def decode_part(self, latents: Tensor, top: int, left: int) -> Tensor:
        """Decode a window of a larger latent, whose first cell is (top, left). Other than `decode` only if the place matters."""
        return self.decode(latents)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of an image. Raises ValueError, with sides that would fit, if it cannot be encoded."""
        if self.image_size is not None and (height, width) != tuple(self.image_size):
            only, asked = "x".join(map(str, self.image_size)), height if height == width else [height, width]
            raise ValueError(
                f"{self.label} was opened for images of {only}, not {height}x{width}: open it with image_size={asked}"
            )
        f = self.downsample
        if min(height, width) < f:
            raise ValueError(f"an image of {height}x{width} is smaller than one latent cell of {self.label}, {f}x{f} pixels")
        if height % f or width % f:
            raise ValueError(
                f"an image of {height}x{width} cannot be encoded by {self.label}: both sides must be multiples of {f}, "
                f"such as {height - height % f}x{width - width % f}"
            )
        return self.latent_channels, height // f, width // f


def point_posterior(latents: Tensor) -> Posterior:
    """Posterior of a deterministic encoder (zero variance): every sample equals the mean."""
    return Posterior(latents, torch.full_like(latents, -torch.inf))
