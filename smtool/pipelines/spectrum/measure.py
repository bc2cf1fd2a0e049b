"""Opening what `smtool spectrum` measures, and the one pass in which every image is read and encoded once."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from smtool.datasets import ImageShards, open_images, read_card, validation_batches
from smtool.datasets.card import CARD_NAME
from smtool.errors import CheckpointError
from smtool.interop import autoencoder_digest, find_autoencoder, load_autoencoder
from smtool.pipelines.spectrum.ring_tables import ImageRings, LatentRings, Size
from smtool.pipelines.spectrum.scores_physical import physical_delta_of
from smtool.pipelines.spectrum.units import Units
from smtool.report.console import Console
from smtool.spectrum import PHYSICAL, Estimator
from smtool.storage import read_metadata

BATCH = 16
DEFAULT_SIZE = 256
FEWEST_HELD_OUT = 16
REFERENCE_SIDE = 32
"""To which images alone are shrunk for their REFERENCE curve: the latent side of f8 at 256 px."""
LOOKS = (16, 64, 256, 1024)
"""Where a run with a budget may look at its intervals: to look after every image would make them too short (sheet, section 7)."""
GOOD_HALF_WIDTH = 0.1


@dataclass(frozen=True)
class Subject:
    """An autoencoder to measure: what it is called, where it came from, what its recipe says ({} for foreign ones)."""

    label: str
    path: Path
    rings: LatentRings
    digest: str
    recipe: dict[str, Any]

    def latent_size(self, image_size: int) -> Size:
        try:
            _, height, width = self.rings.autoencoder.section.latent_shape(image_size, image_size)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {error}.", hint="Pass images of another size with --data.") from error
        return height, width


@dataclass
class Pass:
    """What one pass has gathered: the rings of the images and of every subject's latents, and which unit each image is from."""

    images: ImageRings
    subjects: Sequence[Subject]
    units: Units
    shards: ImageShards
    stopped: str = "all images that were asked for"

    def size(self, subject: Subject) -> Size:
        return subject.latent_size(self.shards.image_size)


def open_subjects(
    names: Sequence[str], estimators: Sequence[Estimator], *, low_pass_images: int, device: str
) -> list[Subject]:
    """Load every autoencoder; equal names are told apart."""
    paths = [find_autoencoder(name) for name in names]
    subjects = []
    for path, label in zip(paths, _labels(paths), strict=True):
        autoencoder = load_autoencoder(path, device=device).eval()
        rings = LatentRings(label, autoencoder, estimators, low_pass_images=low_pass_images)
        recipe = read_metadata(path).get("recipe") if path.is_file() else None
        subjects.append(Subject(label, path, rings, autoencoder_digest(autoencoder), recipe if isinstance(recipe, dict) else {}))
    return subjects


def open_measured(data: str, subjects: Sequence[Subject], console: Console) -> ImageShards:
    """Validation images; training images of data that hold fewer than FEWEST_HELD_OUT others."""
    if (Path(data) / CARD_NAME).is_file():
        card = read_card(Path(data))
        size, held_out, trained = card.image_size, card.count("val"), card.count("train")
        return open_images(data, "val" if held_out >= FEWEST_HELD_OUT or not trained else "train", image_size=size)
    size = _trained_size(subjects)
    with console.progress(f"preparing {data}") as report:
        images = open_images(data, "train", image_size=size, report=report)
    return open_images(data, "val", image_size=size) if images.card.count("val") >= FEWEST_HELD_OUT else images


@torch.no_grad()
def measure(
    shards: ImageShards,
    subjects: Sequence[Subject],
    estimators: Sequence[Estimator],
    *,
    limit: int,
    budget: float | None,
    device: str,
    console: Console,
) -> Pass:
    """Read, encode and gather up to `limit` images, batch by batch; with a budget, in seconds, perhaps fewer."""
    groups = shards.groups
    units = Units("photograph", groups) if groups else Units("image", [str(i) for i in range(len(shards))])
    own = min(REFERENCE_SIDE, shards.image_size)
    sizes = list(dict.fromkeys(subject.latent_size(shards.image_size) for subject in subjects)) or [(own, own)]
    gathered = Pass(ImageRings(estimators, sizes), subjects, units.first(0), shards)
    start, count = time.monotonic(), 0
    with console.progress("measuring spectra") as report:
        for batch in validation_batches(shards, batch=BATCH, limit=limit):
            pixels = batch.images.to(device)
            gathered.images.add(pixels)
            for subject in subjects:
                subject.rings.add(pixels, count)
            count += len(pixels)
            gathered.units = units.first(count)
            report(count, limit)
            if budget is not None and (reason := _enough(gathered, budget - (time.monotonic() - start))):
                gathered.stopped = reason
                break
    return gathered


def _labels(paths: Sequence[Path]) -> list[str]:
    """The run's name for its ckpt.safetensors, else the file's or folder's own; equal ones are told apart."""
    named = [path.resolve().parent if path.name == "ckpt.safetensors" else path.resolve() for path in paths]
    counts = Counter(path.stem for path in named)
    longer = [path.stem if counts[path.stem] == 1 else f"{path.parent.name}/{path.stem}" for path in named]
    return [name if longer.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(longer)]


def _trained_size(subjects: Sequence[Subject]) -> int:
    """The image size that the recipes agree on."""
    sizes = {subject.label: subject.recipe["data"]["image_size"] for subject in subjects if "data" in subject.recipe}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{label} {size} px" for label, size in sizes.items())
        raise CheckpointError(
            f"These autoencoders were trained at different sizes ({listed}): there is no natural size to compare them at.",
            hint="Prepare images at one size and pass them: smtool prepare builtin:photos --size 64, then --data data/photos-64.",
        )
    return next(iter(sizes.values()), DEFAULT_SIZE)


def _enough(gathered: Pass, seconds_left: float) -> str:
    """Why a pass with a budget may end now, or ""."""
    if seconds_left <= 0:
        return "the budget was spent"
    looks = len(gathered.units.groups) in LOOKS and gathered.subjects and gathered.images.measures(PHYSICAL)
    if looks and all(_delta_is_known(subject, gathered) for subject in gathered.subjects):
        return f"every delta is known to +-{GOOD_HALF_WIDTH}"
    return ""


def _delta_is_known(subject: Subject, gathered: Pass) -> bool:
    std = subject.rings.stats("").std
    found = physical_delta_of(gathered.images, subject.rings, std, gathered.size(subject), gathered.units).get("half_width")
    return found is not None and found <= GOOD_HALF_WIDTH
