"""What DCTdiff measures on images before training: the bound eta of luma's DC, and the entropies of coefficients."""

from collections.abc import Iterator

import torch
from torch import Tensor

from smtool.config import Config
from smtool.data.images.loading import validation_batches
from smtool.data.images.reader import ImageShards
from smtool.spectrum.entropy import channel_entropy
from smtool.tokenizers.block_dct import channel_groups, to_tokens
from smtool.tokenizers.dct import DCT, dct, luma_dc, measured_eta_of, round_trip_losses

MOST_IMAGES = 50_000
"""As many as the released code uses."""
_MOST_BLOCKS = 2**25
_MOST_VALUES = 2**26
"""Largest number of luma blocks, and of coefficients, that are kept in memory: of large images, fewer are measured."""
_TRIP_IMAGES = 256
_BATCH = 64


class PlaneValues(Config):
    """A value for each coefficient of a block of the planes Y, Cb and Cr, in zig-zag order."""

    luma: tuple[float, ...]
    blue: tuple[float, ...]
    red: tuple[float, ...]


class FewestCoefficients(Config):
    """How far images with fewer coefficients are from the images themselves.

    judge: name of the Frechet distance; images: number of them; kept: numbers of coefficients that were tried; distances: those
    of decoded images to the images; bound: the largest distance allowed; bound_of: where it comes from, in words; fewest: the
    smallest number such that it and all larger ones stay within the bound, None if none does.
    """

    judge: str
    images: int
    kept: tuple[int, ...]
    distances: tuple[float, ...]
    bound: float
    bound_of: str
    fewest: int | None


class DCTMeasures(Config):
    """Measures of images for `dct:BxM`. eta: the bound of their luma DC, from eta_images images; entropy: in bits, of all B * B
    coefficients in units of the tokenizer's eta, from entropy_images images; weights: entropies of the coefficients that are
    kept over their mean in each plane; losses: PSNR in dB of a round trip (`round_trip_losses`), None for nothing lost.
    """

    eta: float
    eta_images: int
    entropy: PlaneValues
    entropy_images: int
    weights: PlaneValues
    losses: dict[str, float | None]
    fewest_coefficients: FewestCoefficients | None = None


def images_eta(images: ImageShards, block: int) -> tuple[float, int]:
    """DCTdiff's eta of the first images (at most 50,000), and their number."""
    per_image = images.image_size.height * images.image_size.width // block**2
    count = max(1, min(len(images), MOST_IMAGES, _MOST_BLOCKS // per_image))
    return measured_eta_of(torch.cat([luma_dc(part, block) for part in _parts(images, count)])), count


def with_measured_eta(name: str, images: ImageShards) -> str:
    """The name of a DCT tokenizer with eta=measured replaced by the number that these images give."""
    eta, _ = images_eta(images, dct(name, measured=1.0).block)
    return dct(name, measured=eta).name


def measure_dct(description: DCT, images: ImageShards) -> DCTMeasures:
    """Measure the first images of a split. Images are read again for each measure, so that few values are kept in memory."""
    eta, eta_images = images_eta(images, description.block)
    pixels = images.image_size.height * images.image_size.width
    count = max(1, min(len(images), MOST_IMAGES, 2 * _MOST_VALUES // ((3 if description.chroma == "420" else 6) * pixels)))
    settings = {**description.settings, "kept": description.block**2}
    tokens = torch.cat([to_tokens(part, **settings) for part in _parts(images, count)])
    entropies = _by_plane(channel_entropy(tokens, channel_groups(description.block**2, description.chroma)), description)
    kept = [plane[: description.kept] for plane in entropies]
    trip = torch.cat(list(_parts(images, min(count, _TRIP_IMAGES))))
    return DCTMeasures(
        eta=eta,
        eta_images=eta_images,
        entropy=_stored(entropies),
        entropy_images=count,
        weights=_stored([plane / plane.mean() for plane in kept]),
        losses={name: None if db is None else round(db, 3) for name, db in round_trip_losses(description, trip).items()},
    )


def measures_lines(description: DCT, measures: DCTMeasures) -> list[str]:
    """The measures in words, one line each."""
    losses = ", ".join(f"{name} {'none' if db is None else f'{db:.2f} dB'}" for name, db in measures.losses.items())
    lines = [
        f"eta of these images: {measures.eta:.9g} ({measures.eta_images:,} images); eta used: {description.eta:.9g} "
        f"({description.eta_of})",
        f"PSNR of a round trip, by what is lost alone: {losses}",
    ]
    for plane, values in measures.entropy.model_dump().items():
        lines.append(f"entropy of {plane}, in bits, zig-zag: {' '.join(f'{value:.3f}' for value in values)}")
    if (found := measures.fewest_coefficients) is not None:
        lines.append(fewest_line(description, found))
    return lines


def fewest_line(description: DCT, found: FewestCoefficients) -> str:
    """The fewest coefficients within the bound, in a sentence."""
    bound = f"{found.judge} of at most {found.bound:.4g} ({found.bound_of})"
    if found.fewest is None:
        chroma = ": halving chroma alone exceeds it, chroma=444 keeps it" if description.chroma == "420" else ""
        return f"no number of coefficients has {bound}{chroma}"
    return f"fewest coefficients with {bound}: {found.fewest} of {description.block**2}, on {found.images:,} images"


def _parts(images: ImageShards, count: int) -> Iterator[Tensor]:
    return (batch.images for batch in validation_batches(images, batch=_BATCH, limit=count))


def _by_plane(values: Tensor, description: DCT) -> list[Tensor]:
    """The values of one block of each plane, from those of all channels."""
    all_of_block = description.block**2
    planes, first = [], 0
    for blocks, _ in description.groups:
        planes.append(values[first : first + all_of_block])
        first += blocks * all_of_block
    return planes


def _stored(planes: list[Tensor]) -> PlaneValues:
    luma, blue, red = (tuple(round(value, 6) for value in plane.tolist()) for plane in planes)
    return PlaneValues(luma=luma, blue=blue, red=red)
