"""Opening what `smtool spectrum` measures: codecs by any name, and the images they are measured on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from smtool.datasets import ImageShards, open_images, read_card
from smtool.datasets.card import CARD_NAME
from smtool.errors import CheckpointError, RecipeError
from smtool.networks.layers import DownsamplePad
from smtool.pipelines.spectrum.passes import PassMeter
from smtool.pipelines.spectrum.ring_tables import LatentRings, Size
from smtool.report.console import Console
from smtool.spectrum import Estimator
from smtool.tokenizers import Tokenizer, open_tokenizer

DEFAULT_SIZE = 256
FEWEST_HELD_OUT = 16
SMALLEST_GRID = 3
"""Latent cells a side: on fewer, a ring holds no cell."""
NUM_KEPT = 32
"""Images whose posteriors are kept for the sections that decode."""


@dataclass(frozen=True)
class Subject:
    """A codec to measure, under a label that no other has."""

    label: str
    codec: Tokenizer
    rings: LatentRings
    meter: PassMeter

    def latent_size(self, image_size: int) -> Size:
        try:
            _, height, width = self.codec.latent_shape(image_size, image_size)
        except ValueError as error:
            raise CheckpointError(f"{self.codec.source}: {error}.", hint="Pass images of another size with --data.") from error
        if min(height, width) < SMALLEST_GRID:
            raise CheckpointError(
                f"{self.codec.source}: images of {image_size} px give {height}x{width} cells, too few for a spectrum.",
                hint=f"Pass images of at least {SMALLEST_GRID * self.codec.downsample} px with --data.",
            )
        return height, width


def open_subjects(
    names: Sequence[str],
    estimators: Sequence[Estimator],
    *,
    data: str,
    downsample_pad: DownsamplePad | None,
    weights_dir: Path | None,
    device: str,
) -> tuple[list[Subject], int]:
    """Open every codec, and choose the side of the images: that of prepared data, else the one the codecs were made for.

    Equal names are told apart. An encoder whose grid depends on the images' side is opened for that side.
    """
    opened = partial(open_tokenizer, device=device, downsample_pad=downsample_pad, weights_dir=weights_dir)
    prepared = _prepared_size(data)
    codecs = [opened(name, image_size=prepared) for name in names]
    labels = _labels(codecs)
    size = prepared or _natural_size(dict(zip(labels, codecs, strict=True)))
    for i, codec in enumerate(codecs):
        if codec.image_size not in (None, size):
            codecs[i] = opened(names[i], image_size=size)
    subjects = [
        Subject(label, codec, LatentRings(label, codec, estimators, keep=NUM_KEPT), PassMeter(codec, device))
        for label, codec in zip(labels, codecs, strict=True)
    ]
    return subjects, size


def open_measured(data: str, size: int, console: Console) -> ImageShards:
    """Validation images; training images of data that hold fewer than FEWEST_HELD_OUT others."""
    if _prepared_size(data) is not None:
        card = read_card(Path(data))
        held_out, trained = card.count("val"), card.count("train")
        return open_images(data, "val" if held_out >= FEWEST_HELD_OUT or not trained else "train", image_size=size)
    with console.progress(f"preparing {data}") as report:
        images = open_images(data, "train", image_size=size, report=report)
    return open_images(data, "val", image_size=size) if images.card.count("val") >= FEWEST_HELD_OUT else images


def referred(name: str | None, names: Sequence[str], subjects: Sequence[Subject]) -> str | None:
    """Label of the subject that others are matched to: asked for by name or label, else the first; None without any."""
    if name is None:
        return subjects[0].label if subjects else None
    for asked, subject in zip(names, subjects, strict=True):
        if name in (asked, subject.label):
            return subject.label
    known = ", ".join(subject.label for subject in subjects) or "none: only images"
    raise RecipeError(f"--reference {name}: it is not among the autoencoders to measure.", hint=f"They are {known}.")


def _labels(codecs: Sequence[Tokenizer]) -> list[str]:
    """The codecs' own names; equal ones are told apart by the folder they lie in, or by number."""
    counts = Counter(codec.label for codec in codecs)
    longer = [codec.label if counts[codec.label] == 1 else _longer(codec) for codec in codecs]
    return [name if longer.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(longer)]


def _longer(codec: Tokenizer) -> str:
    path = Path(codec.source).resolve()
    if not path.exists():
        return codec.label
    path = path.parent if path.name == "ckpt.safetensors" else path
    return f"{path.parent.name}/{codec.label}"


def _prepared_size(data: str) -> int | None:
    """The image size of a prepared folder; None for what is still to be prepared."""
    return read_card(Path(data)).image_size if (Path(data) / CARD_NAME).is_file() else None


def _natural_size(codecs: Mapping[str, Tokenizer]) -> int:
    """The image size that the recipes agree on; without recipes, the smallest that an encoder was made for."""
    sizes = {label: codec.recipe["data"]["image_size"] for label, codec in codecs.items() if "data" in codec.recipe}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{label} {size} px" for label, size in sizes.items())
        raise CheckpointError(
            f"These autoencoders were trained at different sizes ({listed}): there is no natural size to compare them at.",
            hint="Prepare images at one size and pass them: smtool prepare builtin:photos --size 64, then --data data/photos-64.",
        )
    fixed = [codec.image_size for codec in codecs.values() if codec.image_size is not None]
    return next(iter(sizes.values()), min(fixed, default=DEFAULT_SIZE))
