"""Anything whose latents `smtool spectrum` can measure, behind one face: autoencoders, frozen encoders, hand-made controls."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smtool.interop.load import find_autoencoder, is_ours, load_autoencoder
from smtool.interop.native import autoencoder_digest
from smtool.networks.layers import DownsamplePad
from smtool.networks.posterior import LatentStats, Posterior
from smtool.storage import read_metadata


class Codec(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> posterior over latents (B, C, H / f, W / f), and back where it can decode.

    network: what runs, for hooks on its layers (None: plain arithmetic); label: a short name; source: what was asked for;
    architecture: one line about it; digest: sha256 of its weights and of what else makes the function; stats: published or
    stored, None where nobody measured them; deterministic: the encoder gives a point, so sample and mean are the same;
    image_size: the only size it takes, None for any multiple of downsample; recipe: {} unless smtool trained it.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Posterior],
        decode: Callable[[Tensor], Tensor] | None,
        *,
        network: nn.Module | None,
        label: str,
        source: str,
        architecture: str,
        digest: str,
        downsample: int,
        latent_channels: int,
        stats: LatentStats | None = None,
        deterministic: bool = False,
        image_size: int | None = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.label, self.source, self.architecture, self.digest = label, source, architecture, digest
        self.downsample, self.latent_channels, self.stats = downsample, latent_channels, stats
        self.deterministic, self.image_size, self.recipe = deterministic, image_size, dict(recipe or {})
        self._encode, self._decode = encode, decode

    @property
    def can_decode(self) -> bool:
        return self._decode is not None

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the latent of an image; ValueError with the sides that would fit."""
        if self.image_size is not None and (height, width) != (self.image_size, self.image_size):
            raise ValueError(
                f"{self.label} was opened for images of {self.image_size}x{self.image_size}, not {height}x{width}: "
                f"open it with image_size={height} for square images of that side"
            )
        f = self.downsample
        if min(height, width) < f:
            raise ValueError(f"an image of {height}x{width} is smaller than one latent cell of {self.label}, {f}x{f} pixels")
        if height % f or width % f:
            raise ValueError(
                f"an image of {height}x{width} cannot be encoded by {self.label}: both sides must be multiples of {f}, "
                f"such as {height - height % f}x{width - width % f}"
            )
        return height // f, width // f

    def encode(self, images: Tensor) -> Posterior:
        self.latent_size(*images.shape[-2:])
        return self._encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) -> images (B, 3, h f, w f), not clamped."""
        if self._decode is None:
            raise ValueError(f"{self.label} only encodes: it has no decoder")
        return self._decode(latents)


def open_codec(
    what: str,
    *,
    device: str = "cpu",
    downsample_pad: DownsamplePad | None = None,
    image_size: int | None = None,
    weights_dir: Path | None = None,
) -> Codec:
    """Open a file, run or folder of an autoencoder, `timm:MODEL`, `squeezenet`, a Python object `module:attribute`, or one of the
    hand-made controls, `control:NAME`.

    image_size: side of the (square) images to come, for encoders whose grid depends on it.
    """
    return _opened(what, device, downsample_pad, image_size, weights_dir).eval().requires_grad_(False)


def _opened(what: str, device: str, pad: DownsamplePad | None, image_size: int | None, weights_dir: Path | None) -> Codec:
    # All of these make a Codec, so they import this file.
    from smtool.interop.controls import control
    from smtool.interop.diffusers_classes import open_by_diffusers, runs_by_diffusers
    from smtool.interop.objects import is_object, open_object
    from smtool.interop.vision import is_vision, open_vision

    if what.startswith("control:"):
        return control(what.removeprefix("control:"))
    if is_vision(what):
        return open_vision(what, device=device, image_size=image_size, weights_dir=weights_dir)
    if is_object(what):
        return open_object(what, device=device, image_size=image_size)
    if runs_by_diffusers(path := find_autoencoder(what)):
        return open_by_diffusers(path, source=what, device=device, image_size=image_size)
    return _autoencoder(what, device, pad)


def _autoencoder(what: str, device: str, downsample_pad: DownsamplePad | None) -> Codec:
    path = find_autoencoder(what)
    autoencoder = load_autoencoder(path, device=device, downsample_pad=downsample_pad)
    section = autoencoder.section
    recipe = read_metadata(path).get("recipe") if path.is_file() and is_ours(path) else None
    named = path.resolve().parent if path.name == "ckpt.safetensors" else path.resolve()
    return Codec(
        autoencoder.encode,
        autoencoder.decode,
        network=autoencoder,
        label=named.stem,
        source=what,
        architecture=f"AutoencoderKL f{section.downsample}, {section.latent_channels} channels, {section.downsample_pad} padding",
        digest=autoencoder_digest(autoencoder),
        downsample=section.downsample,
        latent_channels=section.latent_channels,
        stats=autoencoder.stats,
        recipe=recipe if isinstance(recipe, dict) else {},
    )


def point_posterior(latents: Tensor) -> Posterior:
    """The posterior of an encoder that knows no spread: every sample is the mean, exactly."""
    return Posterior(latents, torch.full_like(latents, -torch.inf))
