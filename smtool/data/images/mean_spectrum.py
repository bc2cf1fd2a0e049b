"""The mean power spectrum in a prepared folder's card, in numpy: `prepare` does not import torch.

The definition is that of `smtool.spectrum`'s PHYSICAL estimator (spectrum.md#power-spectrum), with which a test compares it.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from smtool.data.images.card import DatasetCard, MeanSpectrum
from smtool.data.images.shards import read_index, read_member

SPECTRUM_IMAGES = 256  # the first training images, which are a random sample


def mean_spectrum(folder: Path, card: DatasetCard) -> MeanSpectrum:
    """The spectrum for the card, computed in float64 and rounded to 6 digits."""
    total, images = 0.0, 0
    for pixels in _first_images(folder, card):
        total = total + (_dct(_dct(pixels / 127.5 - 1).swapaxes(0, 1)) ** 2).mean(2).T
        images += 1
    power = np.asarray(total) / images
    ring, logarithm = _rings(*power.shape)
    count = np.bincount(ring)[1:]
    frequency = np.exp(np.bincount(ring, logarithm)[1:] / count)
    return MeanSpectrum(
        images=images, frequency=_rounded(frequency), power=_rounded(np.bincount(ring, power.ravel())[1:] / count)
    )


def _first_images(folder: Path, card: DatasetCard):  # type: ignore[no-untyped-def]
    """The first training images, (H, W, C) float64 in [0, 255]."""
    left = SPECTRUM_IMAGES
    for shard in card.train:
        for row in read_index(folder, shard)[:left]:
            offset, size, crc32 = int(row["offset"]), int(row["bytes"]), int(row["crc32"])
            data = read_member(folder / shard.name, offset=offset, size=size, crc32=crc32, what=f"image {row['key']:08d}")
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image, np.float64)
            yield pixels.reshape(*pixels.shape[:2], -1)
            left -= 1


def _dct(x: np.ndarray) -> np.ndarray:
    """Orthonormal DCT-II over the first axis, by one FFT of the same length (Makhoul 1980)."""
    length = len(x)
    turned = np.fft.fft(np.concatenate([x[::2], x[1::2][::-1]]), axis=0)
    angle = np.exp(-0.5j * np.pi * np.arange(length) / length) * np.sqrt(2 / length)
    angle[0] /= np.sqrt(2)
    return (turned * angle[:, None, None]).real


def _rings(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(number of each cell's ring, from 1; 0 for cells in no ring), and the logarithm of its frequency in cycles per pixel.

    In units of half a cycle per frame of the shorter side n: rings of width 1 centred on 1 ... 8, then 6 per octave, at least 1
    wide, up to n. A last ring narrower than half a unit is merged with its neighbour.
    """
    side = min(height, width)
    edges = [k + 0.5 for k in range(1, 9) if k + 0.5 < side]
    while edges[-1] >= 8.5 and (edge := max(edges[-1] * 2 ** (1 / 6), edges[-1] + 1)) < side:
        edges.append(edge)
    if side - edges[-1] < 0.5:
        edges.pop()
    squared = (np.arange(height)[:, None] * width) ** 2 + (np.arange(width) * height) ** 2  # (2 height width r)^2
    ring = 1 + np.searchsorted(edges, (np.sqrt(squared) * side / (height * width)).ravel(), side="right")
    ring[(squared == 0).ravel() | (squared > (height * width) ** 2).ravel()] = 0
    return ring, np.log(np.sqrt(np.maximum(squared, 1)) / (2 * height * width)).ravel()


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
