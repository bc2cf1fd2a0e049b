"""Opens what is measured: autoencoders by name, and the images."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smtool.data import ImageShards, open_images, read_card
from smtool.data.images.card import is_prepared
from smtool.data.images.open import known_channels
from smtool.devices import exact_convolutions
from smtool.errors import CheckpointError, RecipeError
from smtool.features.encoder import supply_encoder
from smtool.image_shape import MODES, ImageSize, in_channels
from smtool.inference.diffusion_model import read_diffusion
from smtool.inference.reconstruct import decoded_in_parts, images_at_once
from smtool.networks.layers import DownsamplePad
from smtool.networks.posterior import Posterior
from smtool.report.console import Console
from smtool.tokenizers import Tokenizer, identify, open_tokenizer
from smtool.tokenizers.tiled import tiled

Size = tuple[int, int]
DEFAULT_SIZE = ImageSize(256, 256)
FEWEST_HELD_OUT = 16
PROBED_SECONDS = 4.0
SMALLEST_GRID = 3
"""Latent cells per side; a smaller grid leaves rings without a cell."""


@dataclass
class Meter:
    """Number of images passed through a network, and the seconds this took."""

    images: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class PassSeconds:
    """Seconds to encode and to decode one image of this size. The time is proportional to the number of pixels."""

    encode: float
    decode: float
    size: ImageSize

    def encode_at(self, size: ImageSize) -> float:
        return self.encode * self._area(size)

    def decode_at(self, size: ImageSize) -> float:
        return self.decode * self._area(size)

    def _area(self, size: ImageSize) -> float:
        return (size.height * size.width) / (self.size.height * self.size.width)


class Subject:
    """An autoencoder to measure, with a unique label. Counts and times every encoding and decoding."""

    def __init__(self, label: str, codec: Tokenizer, device: str = "cpu") -> None:
        self.label, self.codec = label, codec
        self.encoded, self.decoded = Meter(), Meter()
        self._wait = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else lambda: None
        self._report: Callable[[int], None] = lambda done: None

    def encode(self, images: Tensor) -> Posterior:
        """Images (B, C, H, W) in [-1, 1] -> posterior of raw latents; convolutions in float32."""
        with exact_convolutions(), self._timed(self.encoded, len(images)):
            return self.codec.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, h, w) -> images (B, C, H, W), not clamped; convolutions in float32."""
        with exact_convolutions(), self._timed(self.decoded, len(latents)):
            return self.codec.decode(latents)

    @torch.no_grad()
    def one_pass(self, images: Tensor) -> PassSeconds:
        """Encode and decode the first of the images (B, C, H, W), up to three times within PROBED_SECONDS; the fastest times.

        The first pass of a network is slower than the others. These passes are not counted.
        """
        times: list[tuple[float, float]] = []
        began = self._now()
        with exact_convolutions():
            while len(times) < 3 and (not times or self._now() - began < PROBED_SECONDS):
                start = self._now()
                latents = self.codec.encode(images[:1]).mode()
                encoded = self._now()
                if self.codec.can_decode:
                    self.codec.decode(latents)
                times.append((encoded - start, self._now() - encoded if self.codec.can_decode else 0.0))
        encode, decode = map(min, zip(*times, strict=True))
        return PassSeconds(encode, decode, ImageSize(*images.shape[-2:]))

    def decode_all(self, latents: Tensor) -> Tensor:
        """`decode` of any number of latents, in batches sized to memory."""
        return decoded_in_parts(self.decode, latents, self.batch_of_latents(latents))

    @torch.no_grad()
    def reconstruct(self, latents: Tensor) -> Tensor | None:
        """The images decoded from unchanged latents; None without a decoder."""
        return self.decode_all(latents) if self.codec.can_decode else None

    def batch_of_latents(self, latents: Tensor) -> int:
        """Batch size for latents (N, C, h, w), from the size of their images."""
        return images_at_once(*(side * self.codec.downsample for side in latents.shape[-2:]))

    def latent_size(self, image_size: ImageSize) -> Size:
        """(height, width) of the latent of an image, in cells.

        Raises CheckpointError if the codec does not accept this size or the grid is too small.
        """
        try:
            _, height, width = self.codec.latent_shape(*image_size)
        except ValueError as error:
            raise CheckpointError(f"{self.codec.source}: {error}.", hint="Pass images of another size with --data.") from error
        filtered = None if self.codec.stats is None else self.codec.stats.recolouring
        if filtered is not None and filtered.size != (height, width):
            measured_on = ImageSize(*(side * self.codec.downsample for side in filtered.size))
            raise CheckpointError(
                f"{self.codec.source}: images of {image_size.words} give {height}x{width} latent cells, but its spectral "
                f"statistics are those of {filtered.size[0]}x{filtered.size[1]} cells.",
                hint=f"Pass images of {measured_on.words} with --data.",
            )
        if min(height, width) < SMALLEST_GRID:
            raise CheckpointError(
                f"{self.codec.source}: images of {image_size.words} give {height}x{width} latent cells, too few for a spectrum.",
                hint=f"Pass images of at least {SMALLEST_GRID * self.codec.downsample} px with --data.",
            )
        return height, width

    @contextmanager
    def reporting(self, report: Callable[[int], None]) -> Iterator[None]:
        """Within this block, call `report` after every batch with the number of images decoded in the block."""
        before, former = self.decoded.images, self._report
        self._report = lambda done: report(done - before)
        try:
            yield
        finally:
            self._report = former

    def _now(self) -> float:
        """The time, after the device has finished its work."""
        self._wait()
        return time.perf_counter()

    @contextmanager
    def _timed(self, meter: Meter, images: int) -> Iterator[None]:
        start = self._now()
        yield
        meter.images += images
        meter.seconds += self._now() - start
        self._report(self.decoded.images)


def open_subjects(
    names: Sequence[str],
    *,
    data: str,
    downsample_pad: DownsamplePad | None,
    weights_dir: Path | None,
    device: str,
    tile: int | None = None,
) -> tuple[list[Subject], ImageSize]:
    """Open all autoencoders and choose the image size: that of prepared data, else the one the autoencoders were trained at.

    A checkpoint of train-dit stands for its autoencoder with the statistics that normalized the transformer's latents. Labels
    are made unique. An encoder with a fixed input size is opened again for the chosen size. tile: see `tiled`.
    """
    opened = partial(_opened, device=device, downsample_pad=downsample_pad, weights_dir=weights_dir)
    prepared, channels = _prepared_size(data), known_channels(data)
    opened = partial(opened, image_channels=channels)
    codecs = [opened(name, image_size=prepared) for name in names]
    labels = _labels(codecs)
    _refuse_other_channels(dict(zip(labels, codecs, strict=True)), data, channels if prepared else None)
    size = prepared or _natural_size(dict(zip(labels, codecs, strict=True)))
    for i, codec in enumerate(codecs):
        if codec.image_size not in (None, size):
            codecs[i] = opened(names[i], image_size=size)
    return [Subject(label, tiled(codec, tile), device) for label, codec in zip(labels, codecs, strict=True)], size


def _opened(name: str, *, device: str, **settings: Any) -> Tokenizer:
    """`open_tokenizer`, or the tokenizer of a transformer's checkpoint, with its statistics."""
    found = identify(name)
    if found.kind != "diffusion" or found.path is None:
        return open_tokenizer(name, device=device, **settings)
    model = read_diffusion(found.path, device)
    codec, facts = model.autoencoder, model.metadata
    supply_encoder(codec, settings.get("weights_dir"), path=found.path)
    codec.stats, codec.source, codec.recipe = model.stats, name, {"data": {"image_size": facts["image_size"]}}
    codec.label = found.path.resolve().parent.name if found.path.name == "ckpt.safetensors" else found.path.stem
    return codec


def open_measured(data: str, size: ImageSize, console: Console, *, channels: int | None = None) -> ImageShards:
    """Open the validation images, or the training images if there are fewer than FEWEST_HELD_OUT validation images.

    channels: of the images that the autoencoders encode; None without autoencoders.
    """
    opened = partial(open_images, image_size=size, channels=channels)
    if _prepared_size(data) is not None:
        card = read_card(Path(data))
    else:
        with console.progress(f"preparing {data}") as report:
            card = opened(data, "train", report=report).card
    held_out = card.count("val")
    if held_out >= FEWEST_HELD_OUT or not card.count("train"):
        return opened(data, "val")
    console.print(f"{data}: {held_out} validation images are fewer than {FEWEST_HELD_OUT}; its training images are measured.")
    return opened(data, "train")


def label_of_reference(name: str | None, names: Sequence[str], subjects: Sequence[Subject]) -> str | None:
    """Label of the subject that time shifts match: the one with this name or label; for None the first, or None without any.

    Raises RecipeError for a name that is not among the subjects.
    """
    if name is None:
        return subjects[0].label if subjects else None
    for asked, subject in zip(names, subjects, strict=True):
        if name in (asked, subject.label):
            return subject.label
    known = ", ".join(subject.label for subject in subjects) or "none (only images)"
    raise RecipeError(f"--reference {name}: not among the measured autoencoders.", hint=f"They are {known}.")


def _labels(codecs: Sequence[Tokenizer]) -> list[str]:
    """The codecs' labels; equal ones get their folder's name as prefix, or a number as suffix."""
    counts = Counter(codec.label for codec in codecs)
    longer = [codec.label if counts[codec.label] == 1 else _with_folder(codec) for codec in codecs]
    return [name if longer.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(longer)]


def _with_folder(codec: Tokenizer) -> str:
    path = Path(codec.source).resolve()
    if not path.exists():
        return codec.label
    path = path.parent if path.name == "ckpt.safetensors" else path
    return f"{path.parent.name}/{codec.label}"


def _refuse_other_channels(codecs: Mapping[str, Tokenizer], data: str, prepared: int | None) -> None:
    """Raise CheckpointError if the autoencoders encode images of different numbers of channels, or of others than prepared."""
    for codec in codecs.values():
        if prepared not in (None, codec.image_channels):
            raise CheckpointError(
                f"{codec.source} encodes images of {in_channels(codec.image_channels)}, but those of {data} have "
                f"{in_channels(prepared)}.",
                hint=f"Prepare other images: smtool prepare SOURCE --mode {MODES[codec.image_channels]}",
            )
    if len({codec.image_channels for codec in codecs.values()}) > 1:
        listed = ", ".join(f"{label} {codec.image_channels}" for label, codec in codecs.items())
        raise CheckpointError(
            f"These autoencoders encode images of different numbers of channels ({listed}).",
            hint="Measure those of one number of channels at a time.",
        )


def _prepared_size(data: str) -> ImageSize | None:
    """The image size of a prepared folder; None for data that is not prepared."""
    return read_card(Path(data)).image_size if is_prepared(Path(data)) else None


def _natural_size(codecs: Mapping[str, Tokenizer]) -> ImageSize:
    """The image size of the recipes; without recipes, the smallest fixed input size, else DEFAULT_SIZE.

    Raises CheckpointError if the recipes state different sizes.
    """
    sizes = {label: ImageSize.of(codec.recipe["data"]["image_size"]) for label, codec in codecs.items() if "data" in codec.recipe}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{label} {size.words}" for label, size in sizes.items())
        raise CheckpointError(
            f"These autoencoders were trained at different image sizes ({listed}), so the size to measure at must be given.",
            hint="Prepare images at one size and pass them: smtool prepare builtin:photos --size 64, then --data data/photos-64.",
        )
    fixed = [codec.image_size for codec in codecs.values() if codec.image_size is not None]
    return next(iter(sizes.values()), min(fixed, key=min, default=DEFAULT_SIZE))
