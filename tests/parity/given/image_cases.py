"""Pictures, decoded images and features on which crops, file formats and scores are recorded."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from given import numbers
from given.summary import array

SIZE = 64
CROPS = ((64, 64), (97, 97), (200, 150), (130, 300), (257, 521))
"""(width, height) of the pictures that are cropped to SIZE."""
RINGS = ((4, 16), (8, 16), (16, 16), (32, 16), (64, 16), (57, 16), (113, 16), (125, 16))
"""(side, bins) of square spectra."""


def picture(width: int, height: int) -> Image.Image:
    pixels = numbers.byte_images((1, 3, height, width), "picture", width, height)[0]
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def decodings() -> tuple[Tensor, Tensor]:
    """(images in [-1, 1], reconstructions); 7 % of the values of the reconstructions lie outside this range."""
    shape = (4, 3, SIZE, SIZE)
    images = numbers.signed_images(shape, "images")
    noisy = images + 0.1 * numbers.normal(shape, "noise")
    far = numbers.uniform(shape, "far") < 0.07
    return images, torch.where(far, 1.3 * torch.sign(noisy), noisy.clamp(-1, 1))


def features() -> tuple[Tensor, Tensor]:
    """Two sets of feature vectors, (60, 12) and (50, 12)."""
    mixing = numbers.normal((12, 12), "mixing")
    return numbers.normal((60, 12), "first") @ mixing, 0.5 + numbers.normal((50, 12), "second")


def spectra(images: Tensor, latents: Tensor, divergence: Tensor) -> dict[str, object]:
    """Summaries of the normalized bins of images and latents, (2, 16) each, and their divergence."""
    return {"images": array(images), "latents": array(latents), "divergence": float(divergence)}


def spectrum_pair(side: int) -> tuple[Tensor, Tensor]:
    """Two images with 4 side x 4 side pixels, and two latents with side x side cells."""
    return numbers.signed_images((2, 3, 4 * side, 4 * side), "images", side), numbers.normal((2, 4, side, side), "latents", side)
