"""Images that need no download: crops of scikit-image's bundled photographs, and two synthetic kinds with known spectrum.

`builtin:photos`, `builtin:power-law?exponent=2`, `builtin:dead-leaves`; each takes `train=` and `val=`, the numbers of images.
Does not import torch: these objects are sent to the worker processes of `prepare`.
"""

import functools
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image

from smtool.data.images.decoding import AS_STORED, Decoded, Reading, to_mode
from smtool.data.images.entries import Entry, FileRange
from smtool.errors import DataError, RecipeError

# Inside the scikit-image wheel, which describes them as free of copyright restrictions. One half of each photograph is for
# training, the other for validation.
PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
_COUNTS = {"train": 2048, "val": 256}
_OPTIONS: dict[str, dict[str, float]] = {
    "photos": {**_COUNTS},
    "power-law": {**_COUNTS, "exponent": 2.0},
    "dead-leaves": {**_COUNTS},
}


@dataclass(frozen=True)
class Builtin:
    """A parsed `builtin:` name; options holds the value of every option, given or default."""

    name: str
    options: dict[str, float]

    @property
    def slug(self) -> str:
        """A folder name: the source's name and the options that differ from their defaults."""
        changed = (f"{key}{value:g}" for key, value in self.options.items() if value != _OPTIONS[self.name][key])
        return "-".join([self.name, *changed])

    def entries(self, size: int) -> list[Entry]:
        """All images, for a target of size x size pixels."""
        make = {"photos": _photo_entries, "power-law": self._power_law_entries, "dead-leaves": _dead_leaves_entries}[self.name]
        return [entry for split in ("train", "val") for entry in make(split, int(self.options[split]), size)]

    def _power_law_entries(self, split: str, count: int, size: int) -> list[Entry]:
        exponent = self.options["exponent"]
        return [Entry(f"{split}/{i:06d}", PowerLawField(f"{split}/{i}", size, exponent), split=split) for i in range(count)]


def parse_builtin(source: str) -> Builtin:
    """Parse `builtin:NAME?key=value&key=value`. Raises RecipeError for an unknown name, key or value."""
    name, _, query = source.removeprefix("builtin:").partition("?")
    if name not in _OPTIONS:
        raise RecipeError(
            f"{source!r}: there is no built-in source {name!r}.", hint=f"Use builtin: with one of {', '.join(_OPTIONS)}."
        )
    options = dict(_OPTIONS[name])
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in options:
            raise RecipeError(f"{source!r}: builtin:{name} has no option {key!r}.", hint=f"It has {', '.join(options)}.")
        options[key] = _number(source, key, text)
    return Builtin(name, options)


def distinct_photographs(size: int) -> dict[str, str]:
    """Name -> file of the photographs whose halves are large enough for a size x size crop."""
    return {name: file for name, file in PHOTOGRAPHS.items() if min(_half("train", _photograph(file).size)[2:]) >= size}


class _Made:
    """An image that is made here: it has no color profile and 8 bits, so a Reading changes only its mode."""

    __slots__ = ()

    def image(self) -> Image.Image:
        raise NotImplementedError

    def decoded(self, reading: Reading) -> Decoded:
        return Decoded(to_mode(self.image(), reading.mode))


@dataclass(frozen=True, slots=True)
class PhotoCrop(_Made):
    """A square of `side` pixels at (left, top) of a bundled photograph."""

    file: str
    left: int
    top: int
    side: int

    def image(self) -> Image.Image:
        return _photograph(self.file).crop((self.left, self.top, self.left + self.side, self.top + self.side))


@dataclass(frozen=True, slots=True)
class PowerLawField(_Made):
    """A Gaussian random field whose power spectrum is f ** -exponent in each of its three correlated channels.

    It is cut from a canvas four times as wide, so that it is not periodic; mean 128, standard deviation 36 levels.
    """

    key: str
    size: int
    exponent: float

    def image(self) -> Image.Image:
        rng, side = _rng("power-law", self.key), 4 * self.size
        frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
        frequency[0, 0] = np.inf
        noise = np.fft.rfft2(rng.standard_normal((3, side, side)))
        fields = np.fft.irfft2(noise * frequency ** (-self.exponent / 2), s=(side, side))[:, : self.size, : self.size]
        mixed = np.einsum("ij,jhw->hwi", _CHANNEL_MIX, fields / _canvas_deviation(side, self.exponent))
        return Image.fromarray(np.clip(np.rint(128 + 36 * mixed), 0, 255).astype(np.uint8))


@dataclass(frozen=True, slots=True)
class DeadLeaves(_Made):
    """Opaque discs of random colour and of radius density r ** -3, the scale-invariant model of occlusion (Lee et al. 2001).

    Radii range from 1 pixel to half the side. Drawn at twice the size: the box halving of the center crop then antialiases edges.
    """

    key: str
    size: int

    def image(self) -> Image.Image:
        rng, side = _rng("dead-leaves", self.key), 2 * self.size
        canvas, bare = np.zeros((side, side, 3), np.uint8), np.ones((side, side), bool)
        while bare.any():  # front to back: a disc paints only pixels that are still empty
            for x, y, radius, colour in zip(*_leaves(rng, side), strict=True):
                _drop(canvas, bare, x, y, radius, colour)
        return Image.fromarray(canvas)


def _leaves(rng: np.random.Generator, side: int, count: int = 4096) -> tuple[np.ndarray, ...]:
    """Draw `count` discs over canvas and margin; return centers (x, y), radii and colors of those that touch the canvas."""
    smallest, largest = 2.0, side / 2
    radius = (smallest**-2 + rng.random(count) * (largest**-2 - smallest**-2)) ** -0.5
    x, y = rng.uniform(-largest, side + largest, (2, count))
    touching = (np.abs(x - side / 2) < side / 2 + radius) & (np.abs(y - side / 2) < side / 2 + radius)
    return x[touching], y[touching], radius[touching], rng.integers(0, 256, (count, 3))[touching]


def _drop(canvas: np.ndarray, bare: np.ndarray, x: float, y: float, radius: float, colour: np.ndarray) -> None:
    left, right, top, bottom = max(0, int(x - radius)), int(x + radius) + 2, max(0, int(y - radius)), int(y + radius) + 2
    window = bare[top:bottom, left:right]
    if window.any():
        rows, columns = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
        shows = window & ((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)
        canvas[top:bottom, left:right][shows] = colour
        window &= ~shows


# Rows have unit length, so each channel keeps the field's power; any two channels correlate at 0.8.
_CHANNEL_MIX = np.linalg.cholesky(np.full((3, 3), 0.8) + 0.2 * np.eye(3))


def _dead_leaves_entries(split: str, count: int, size: int) -> list[Entry]:
    return [Entry(f"{split}/{i:06d}", DeadLeaves(f"{split}/{i}", size), split=split) for i in range(count)]


def _photo_entries(split: str, count: int, size: int) -> list[Entry]:
    """Crops from each photograph in turn, at a random position in its half, with a random zoom from 1 to the half's largest."""
    names = sorted(distinct_photographs(size).items())
    if not names:
        raise DataError(f"builtin:photos has no photograph for {size}-pixel crops.", hint="Use a size of at most 705 pixels.")
    entries = []
    for number in range(count):
        name, file = names[number % len(names)]
        left, top, width, height = _half(split, _photograph(file).size)
        rng = _rng("photos", split, str(number))
        side = round(size * (min(width, height) / size) ** rng.random())
        x, y = left + int(rng.integers(width - side + 1)), top + int(rng.integers(height - side + 1))
        entries.append(Entry(f"{name}/{x},{y},{side}#{split}{number:06d}", PhotoCrop(file, x, y, side), split=split, group=name))
    return entries


def _half(split: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a split's half of a photograph, which is divided across its longer side."""
    width, height = size
    second = split == "val"
    if width >= height:
        return (width // 2 if second else 0), 0, width // 2, height
    return 0, (height // 2 if second else 0), width, height // 2


@functools.lru_cache(maxsize=len(PHOTOGRAPHS))
def _photograph(file: str) -> Image.Image:
    spec = importlib.util.find_spec("skimage")  # finds the folder without importing the package
    folder = Path(spec.submodule_search_locations[0]) / "data" if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / file).is_file():
        raise DataError(
            f"builtin:photos needs {file}, which this scikit-image does not have.", hint="Install scikit-image 0.24 or newer."
        )
    path = folder / file
    return FileRange(str(path), 0, path.stat().st_size).decoded(AS_STORED).image


@functools.lru_cache(maxsize=4)
def _canvas_deviation(side: int, exponent: float) -> float:
    """Expected standard deviation of a canvas: unit noise has variance 1 in every Fourier cell."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    frequency[0, 0] = np.inf
    return float(np.sqrt(np.mean(frequency**-exponent)))


def _rng(*key: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256("/".join(key).encode()).digest()))


def _number(source: str, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise RecipeError(f"{source!r}: {key} must be a number, but is {text!r}.") from None
    if key in _COUNTS and (value < 0 or value != int(value)):
        raise RecipeError(f"{source!r}: {key} must be a whole number of images, but is {text!r}.")
    if key == "exponent" and not -2 <= value <= 6:
        raise RecipeError(f"{source!r}: exponent must lie between -2 and 6, but is {text!r}.")
    return value
