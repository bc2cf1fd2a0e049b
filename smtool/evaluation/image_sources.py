"""Sources of images to score and to compare with. All give uint8 images in a fixed order, with a digest."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smtool.data import ImageShards, open_images, validation_batches
from smtool.data.batches import Rounding, to_uint8
from smtool.data.images.card import is_prepared, read_card
from smtool.data.images.columns import LabelRule
from smtool.data.images.decoding import AS_STORED, UnusableImage
from smtool.data.images.entries import Entry
from smtool.data.images.listing import list_entries
from smtool.data.images.loading import prefetched
from smtool.data.images.sources import Source, find_source
from smtool.diffusion import Sampler
from smtool.errors import DataError
from smtool.evaluation.moments import Moments
from smtool.evaluation.npz_images import NpzImages
from smtool.inference.diffusion_model import DiffusionModel
from smtool.inference.generate import class_labels, generate
from smtool.inference.sampling import Sampling, read_sampling, sampling_of
from smtool.storage import file_digest

_READERS = 4


@dataclass(frozen=True)
class ImageSource:
    """Images of one size. read(positions, batch) yields the images at these positions as uint8 (B, 3, H, W), in order.

    The order is random, so that the first images are a random subset, except for npz files and samples, which keep their order.
    name: for messages; digest: sha256 of everything that decides the pixels; count: number of images; side: (height, width);
    sampling: how samples were drawn, empty if unknown. moments: moments of features stored in an npz file of ADM or smtool; count
    may then be 0.
    """

    name: str
    digest: str
    count: int
    side: tuple[int, int] | None
    read: Callable[[range, int], Iterator[Tensor]]
    sampling: Sampling = field(default_factory=Sampling)
    moments: Moments | None = None


def open_source(what: str, *, image_size: int | None = None) -> ImageSource:
    """Open the training split of a prepared folder or of builtin:NAME, or all images of another folder, archive or .npz.

    Images of other folders and archives are not cropped or resized. image_size: of a built-in source. Raises DataError for
    unreadable images, images of different sizes, and unfinished samples.
    """
    path = Path(what)
    if is_prepared(path):
        card = read_card(path)
        return shards_source(ImageShards(path, card, "train" if card.count("train") else "val"))
    if what.startswith("builtin:"):
        if image_size is None:
            raise DataError(f"{what}: the image size is unknown.", hint=f"Prepare it first: smtool prepare {what} --size SIZE")
        return shards_source(open_images(what, "train", image_size=image_size))
    drawn = read_sampling(path)
    npz = path / "samples.npz" if drawn.known and (path / "samples.npz").is_file() else path
    source = _npz_source(npz, drawn) if npz.suffix == ".npz" else _loose_source(what, drawn)
    if drawn.num_images is not None and source.count < drawn.num_images:
        raise DataError(
            f"{what} holds {source.count} of {drawn.num_images} samples: sampling was interrupted.",
            hint="Run the same `smtool sample` command again to finish it.",
        )
    return source


def shards_source(images: ImageShards) -> ImageSource:
    """The images of one split of a prepared folder."""

    def read(positions: range, batch: int) -> Iterator[Tensor]:
        for part in validation_batches(images, batch=batch, first=positions.start, limit=positions.stop):
            yield to_uint8(part.images)

    split = "training" if images.split == "train" else "validation"
    name = f"{split} images of {images.card.source.name}"
    return ImageSource(name, images.digest, len(images), (images.image_size, images.image_size), read)


def drawn_source(
    path: Path,
    model: DiffusionModel,
    sampler: Sampler,
    *,
    count: int,
    labels: str,
    seed: int,
    rounding: Rounding,
    device: str,
    tile: int | None = None,
) -> ImageSource:
    """Samples of a checkpoint, generated when they are read and not written to disk. tile: side of the tiles it decodes."""
    classes = class_labels(count, model.num_classes, labels, seed=seed)
    autoencoder = model.metadata["autoencoder"]["digest"]
    more = {} if tile is None else {"tile": tile}
    sampling = sampling_of(model, sampler, labels=labels, seed=seed, rounding=rounding, autoencoder=autoencoder, **more)

    def read(positions: range, batch: int) -> Iterator[Tensor]:
        chosen = None if classes is None else classes[positions.start : positions.stop]
        drawn = generate(
            model, positions, seed=seed, sampler=sampler, labels=chosen, batch=batch, device=device, rounding=rounding
        )
        for _, images in drawn:
            yield images

    said = sorted((key, str(value)) for key, value in sampling.to_json().items())
    digest = _digest(file_digest(path), said, count)
    side = tuple(model.autoencoder.downsample * cells for cells in model.latent_shape[1:])
    return ImageSource(f"samples of {path}", digest, count, side, read, sampling)  # type: ignore[arg-type]


def _npz_source(path: Path, drawn: Sampling) -> ImageSource:
    images = NpzImages(path)
    digest = file_digest(path)
    return ImageSource(str(path), digest, images.count, images.side, images.read, drawn, images.moments())


def _loose_source(what: str, drawn: Sampling) -> ImageSource:
    source = find_source(what)
    scratch = tempfile.TemporaryDirectory(prefix="smtool-")      # for compressed tars; kept as long as `read` exists
    entries = list_entries(source, size=0, scratch=Path(scratch.name), labels=LabelRule("none")).entries
    if drawn.known:
        entries = tuple(entry for entry in entries if entry.id != "grid.png")
    else:      # sorted names put classes one after another, so the first images would cover only a few classes
        entries = tuple(sorted(entries, key=lambda entry: hashlib.sha256(entry.id.encode("utf-8", "surrogateescape")).digest()))
    first = _pixels(what, entries[:1], None, scratch)
    side = (first.shape[-2], first.shape[-1])

    def read(positions: range, batch: int) -> Iterator[Tensor]:
        parts = (entries[start : min(start + batch, positions.stop)] for start in range(positions.start, positions.stop, batch))
        yield from prefetched(lambda part: _pixels(what, part, side, scratch), parts, _READERS)

    return ImageSource(what, _loose_digest(source, entries), len(entries), side, read, drawn)


def _pixels(what: str, entries: Sequence[Entry], side: tuple[int, int] | None, scratch: object) -> Tensor:
    pictures = []
    for entry in entries:
        try:
            image = entry.place.decoded(AS_STORED).image
        except UnusableImage as error:
            raise DataError(f"{what}: {entry.id} cannot be read: {error}.") from error
        side = side or (image.height, image.width)
        if (image.height, image.width) != side:
            raise DataError(
                f"{what}: {entry.id} has {image.width}x{image.height} px, but the images before it have {side[1]}x{side[0]} px.",
                hint=f"Resize them to one size first: smtool prepare {what} --size {min(side)}",
            )
        pictures.append(np.asarray(image))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def _loose_digest(source: Source, entries: Sequence[Entry]) -> str:
    """Digest of the names and bytes of a folder's images, or of an archive's bytes, and of the order of the images."""
    if source.kind != "folder":
        return _digest(source.digest(), [entry.id for entry in entries])
    return _digest([(entry.id, file_digest(source.files[0] / entry.id)) for entry in entries])


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()
