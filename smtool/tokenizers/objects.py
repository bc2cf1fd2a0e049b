"""Python objects with `encode` and optionally `decode` as tokenizers: `module:attribute`, and diffusers' classes."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smtool.errors import CheckpointError, RecipeError
from smtool.image_shape import ImageSize
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.tokenizer import point_posterior
from smtool.own_code import importing, names_own_code
from smtool.storage import file_digest, tensor_digest
from smtool.tokenizers.functions import FunctionTokenizer

PROBE = ImageSize(256, 256)
"""Default size of the images with which an object is tested when it is opened."""
_FAR = 8.0
"""Limit of decoded values: a decoder of images in [-1, 1] does not exceed it."""


def is_object(what: str) -> bool:
    return names_own_code(what) and not Path(what).exists()


def open_object(
    what: str, *, device: str = "cpu", image_size: ImageSize | None = None, image_channels: int = 3
) -> FunctionTokenizer:
    """Open `module:attribute`, an object or a function or class without arguments that returns one.

    Modules in the current folder can be imported. Raises RecipeError if this fails, CheckpointError if the object is unsuitable.
    """
    with importing(what) as found:
        made = found() if isinstance(found, type) or (callable(found) and not hasattr(found, "encode")) else found
    if not callable(getattr(made, "encode", None)):
        raise RecipeError(f"{what} is {type(made).__name__}, which has no method encode(images).")
    return object_tokenizer(
        made, label=what.split(":")[1], source=what, device=device, image_size=image_size, image_channels=image_channels
    )


def object_tokenizer(
    made: Any,
    *,
    label: str,
    source: str,
    device: str = "cpu",
    image_size: ImageSize | None = None,
    image_channels: int = 3,
    stats: LatentStats | None = None,
    kind: str | None = None,
) -> FunctionTokenizer:
    """The tokenizer of an object, whose shapes and ranges are tested once with a black, a white and a noise image.

    encode(images in [-1, 1]) may return latents, a Posterior, or the output type of diffusers' encoders; decode(latents) may
    return images in [-1, 1] or the output type of diffusers' decoders. kind: name for the architecture line; default: the class.
    Raises CheckpointError if shapes or ranges are wrong.
    """
    if isinstance(made, nn.Module):
        made = made.to(device).eval()

    def encode(images: Tensor) -> Posterior:
        return _posterior(made.encode(images), source)

    def decode(latents: Tensor) -> Tensor:
        return _images(made.decode(latents), source)

    size, has_decoder = image_size or PROBE, callable(getattr(made, "decode", None))
    shape = (image_channels, *size)
    posterior = _tried(encode, decode if has_decoder else None, shape=shape, source=source, device=device)
    channels, height = posterior.mean.shape[1:3]
    downsample = size.height // height
    kind = kind or type(made).__name__
    return FunctionTokenizer(
        encode,
        decode if has_decoder else None,
        network=made if isinstance(made, nn.Module) else None,
        label=label,
        source=source,
        architecture=f"{kind} f{downsample}, {channels} channels{'' if has_decoder else ', encode only'}",
        digest=_digest(made),
        downsample=downsample,
        latent_channels=channels,
        image_channels=image_channels,
        stats=stats,
        deterministic=bool(torch.isneginf(posterior.logvar).all()),
        device=device,
    )


@torch.no_grad()
def _tried(
    encode: Callable[[Tensor], Posterior],
    decode: Callable[[Tensor], Tensor] | None,
    *,
    shape: tuple[int, ...],
    source: str,
    device: str,
) -> Posterior:
    """The posterior of a black, a white and a noise image. Raises CheckpointError if shapes or decodings are wrong."""
    noise = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    probes = torch.cat([torch.zeros_like(noise), torch.ones_like(noise), noise]).mul(2).sub(1).to(device)
    posterior = _run(lambda: encode(probes), f"{source}: encode, tested with images of {tuple(probes.shape)},")
    number, _, height, width = posterior.mean.shape
    if number != len(probes) or not _shrunk(shape[1:], (height, width)):
        raise CheckpointError(
            f"{source}: encode returns latents of {tuple(posterior.mean.shape)} for images of {tuple(probes.shape)}, "
            "but (B, C, H / f, W / f) with an integer f is needed."
        )
    if decode is not None:
        images = _run(lambda: decode(posterior.mean), f"{source}: decode")
        if images.shape != probes.shape:
            raise CheckpointError(f"{source}: decode returns {tuple(images.shape)} for images of {tuple(probes.shape)}.")
        _check_range(images, source)
    return posterior


def _shrunk(image: tuple[int, ...], latent: tuple[int, int]) -> bool:
    """Whether the sides of the latent are those of the image divided by one whole number."""
    factors = [side // cells if cells and side % cells == 0 else 0 for side, cells in zip(image, latent, strict=True)]
    return factors[0] == factors[1] > 0


def _run(call: Callable[[], Any], subject: str) -> Any:
    try:
        return call()
    except CheckpointError:
        raise
    except Exception as error:      # any exception of the object
        raise CheckpointError(f"{subject} raised {type(error).__name__}: {next(iter(str(error).splitlines()), '')}") from error


def _check_range(images: Tensor, source: str) -> None:
    low, high = images.min().item(), images.max().item()
    follows = (images[1].mean() - images[0].mean()).item() > 0.25      # white is brighter than black: the decoder works
    if not -_FAR < low <= high < _FAR or (follows and low >= -0.01):
        raise CheckpointError(
            f"{source}: decode returns values from {low:.3g} to {high:.3g} for images from black to white, but [-1, 1] is needed."
        )


def _posterior(returned: Any, source: str) -> Posterior:
    """The result of an encoder as a posterior; plain latents become a posterior with zero variance."""
    if isinstance(returned, Posterior):
        return returned
    if (gaussian := getattr(returned, "latent_dist", None)) is not None:
        return Posterior(gaussian.mean.float(), gaussian.logvar.float())
    for name in ("latent", "latents"):
        returned = getattr(returned, name, returned)
    if not isinstance(returned, Tensor) or returned.ndim != 4 or not returned.is_floating_point():
        raise CheckpointError(
            f"{source}: encode returns {_described(returned)}, but latents (B, C, h, w) are needed.",
            hint="Reshape tokens of a grid to (B, C, h, w). A sequence without positions, as TiTok's, has no spectrum.",
        )
    return point_posterior(returned.float())


def _images(returned: Any, source: str) -> Tensor:
    returned = getattr(returned, "sample", returned)
    if not isinstance(returned, Tensor) or not returned.is_floating_point():
        raise CheckpointError(f"{source}: decode returns {_described(returned)}, but images (B, C, H, W) in [-1, 1] are needed.")
    return returned.float()


def _described(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _digest(made: Any) -> str:
    """Digest of the class and its weights; for an object that is not a module, of the class and its source file."""
    if isinstance(made, nn.Module):
        content = tensor_digest(made.state_dict())
    else:
        file = getattr(sys.modules.get(type(made).__module__), "__file__", None)
        content = "" if file is None else file_digest(Path(file))
    return hashlib.sha256(f"{type(made).__qualname__}|{content}".encode()).hexdigest()
