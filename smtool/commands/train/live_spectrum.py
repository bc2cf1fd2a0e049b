"""Picture of the latents' power spectrum, drawn at each validation of a training run."""

from collections.abc import Mapping

import torch
from torch import Tensor

from smtool.diffusability.sections.flattening import draw_physical
from smtool.diffusability.sections.physical import image_powers, latent_powers
from smtool.report.plots import rasterized
from smtool.spectrum import PHYSICAL, spectrum_of


@torch.no_grad()
def live_spectrum(images: Tensor, latents: Tensor, *, delta: float, note: str) -> Tensor:
    """PHYSICAL spectra of images (N, 3, H, W) and of their latents (N, C, h, w), scaled here to unit variance per channel.

    delta: of the target; note: line below the title, such as step and posterior. Returns a picture, uint8 (3, H', W').
    """
    return draw_live(images, {"latents": latents}, delta=delta, note=note)


@torch.no_grad()
def draw_live(images: Tensor, latents: Mapping[str, Tensor], *, delta: float, note: str) -> Tensor:
    """`live_spectrum` with the latents (N, C, h, w) of several autoencoders, by label."""
    heads = {}
    for label, own in latents.items():
        normalized = own.float() / own.float().std((0, 2, 3), keepdim=True).clamp(min=1e-12)
        at_size = spectrum_of(images, PHYSICAL, (own.shape[-2], own.shape[-1]))
        heads[label] = latent_powers(at_size, spectrum_of(normalized, PHYSICAL), delta=delta)
    title = "PHYSICAL power spectra: are latents a flattened copy of images?"
    return rasterized(draw_physical(image_powers(spectrum_of(images, PHYSICAL)), heads, title=title, note=note))
