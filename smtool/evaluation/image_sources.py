"""Sources of images to score and to compare with. All give uint8 images in a fixed order, with a digest."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smtool.data import ImageShards, open_images, validation_batches
from smtool.data.batches import Rounding, to_uint8
from smtool.data.images.card import is_prepared, read_card
from smtool.diffusion import Sampler
from smtool.errors import DataError
from smtool.evaluation.image_sizes import one_size
from smtool.evaluation.loose_images import LooseImages
from smtool.evaluation.moments import Moments
from smtool.evaluation.npz_images import NpzImages
from smtool.features.pictures import Pictures
from smtool.features.protocol import jpeg_round_trip
from smtool.image_shape import ImageSize, SizeLike
from smtool.inference.diffusion_model import DiffusionModel
from smtool.inference.generate import class_labels, generate
from smtool.inference.sampling import Sampling, read_sampling, sampling_of
from smtool.storage import file_digest


@dataclass(frozen=True)
class ImageSource:
    """Images to score. read(positions, batch) yields the images at these positions as uint8 (B, C, H, W), in order, or as a list
    of (C, H, W) if they have several sizes.

    The order is random, so that the first images are a random subset, except for npz files and samples, which keep their order.
    name: for messages; digest: sha256 of everything that decides the pixels; count: number of images; sizes: of each image, or
    one of all images. sampling: how samples were drawn, empty if unknown. moments: moments of features stored in an npz file of
    ADM or smtool; count may then be 0. remarks: what is unusual about images of loose files, with their number; left_out: why
    files are not used, with their number. channels: of every image.
    """

    name: str
    digest: str
    count: int
    sizes: Sequence[ImageSize]
    read: Callable[[range, int], Iterator[Pictures]]
    sampling: Sampling = field(default_factory=Sampling)
    moments: Moments | None = None
    remarks: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    channels: int = 3

    def sizes_of(self, count: int) -> Mapping[ImageSize, int]:
        """Number of images of each size among the first `count`."""
        return {self.sizes[0]: count} if len(self.sizes) == 1 else Counter(self.sizes[:count])

    @property
    def side(self) -> ImageSize | None:
        """The size of all images; None if there are several sizes or no images."""
        return one_size(self.sizes_of(self.count))


def open_source(what: str, *, image_size: SizeLike | None = None, channels: int = 3) -> ImageSource:
    """Open the training split of a prepared folder or of builtin:NAME, or all images of another folder, archive or .npz.

    Images of other folders and archives are not cropped or resized. image_size: of a built-in source; channels: of
    a built-in source and of loose files, unless `smtool sample` wrote them. Raises DataError for unreadable images and unfinished
    samples.
    """
    path = Path(what)
    if is_prepared(path):
        card = read_card(path)
        return shards_source(ImageShards(path, card, "train" if card.count("train") else "val"))
    if what.startswith("builtin:"):
        if image_size is None:
            raise DataError(f"{what}: the image size is unknown.", hint=f"Prepare it first: smtool prepare {what} --size SIZE")
        return shards_source(open_images(what, "train", image_size=image_size, channels=channels))
    drawn = read_sampling(path)
    npz = path / "samples.npz" if drawn.known and (path / "samples.npz").is_file() else path
    source = _npz_source(npz, drawn) if npz.suffix == ".npz" else _loose_source(what, drawn, channels)
    if drawn.num_images is not None and source.count < drawn.num_images:
        raise DataError(
            f"{what} holds {source.count} of {drawn.num_images} samples: sampling was interrupted.",
            hint="Run the same `smtool sample` command again to finish it.",
        )
    return source


def shards_source(images: ImageShards) -> ImageSource:
    """The images of one split of a prepared folder."""

    def read(positions: range, batch: int) -> Iterator[Pictures]:
        for part in validation_batches(images, batch=batch, first=positions.start, limit=positions.stop):
            yield to_uint8(part.images)

    split = "training" if images.split == "train" else "validation"
    name = f"{split} images of {images.card.source.name}"
    return ImageSource(name, images.digest, len(images), [images.image_size], read, channels=images.channels)


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
    jpeg: int | None = None,
) -> ImageSource:
    """Samples of a checkpoint, generated when they are read and not written to disk. tile: side of the tiles it decodes.

    jpeg: quality at which they are coded, as `smtool sample --format` writes them; None: not coded.
    """
    classes = class_labels(count, model.num_classes, labels, seed=seed)
    autoencoder = model.metadata["autoencoder"]["digest"]
    more: dict[str, Any] = {} if tile is None else {"tile": tile}
    more |= {} if jpeg is None else {"format": f"jpeg:{jpeg}"}
    sampling = sampling_of(model, sampler, labels=labels, seed=seed, rounding=rounding, autoencoder=autoencoder, **more)

    def read(positions: range, batch: int) -> Iterator[Pictures]:
        chosen = None if classes is None else classes[positions.start : positions.stop]
        drawn = generate(
            model, positions, seed=seed, sampler=sampler, labels=chosen, batch=batch, device=device, rounding=rounding
        )
        for _, images in drawn:
            yield images if jpeg is None else jpeg_round_trip(images, jpeg)

    said = sorted((key, str(value)) for key, value in sampling.to_json().items())
    digest = _digest(file_digest(path), said, count)
    size = ImageSize(*(model.autoencoder.downsample * cells for cells in model.latent_shape[1:]))
    channels = model.autoencoder.image_channels
    return ImageSource(f"samples of {path}", digest, count, [size], read, sampling, channels=channels)


def _npz_source(path: Path, drawn: Sampling) -> ImageSource:
    images = NpzImages(path)
    digest = file_digest(path)
    sizes = [] if images.side is None else [images.side]
    return ImageSource(
        str(path), digest, images.count, sizes, images.read, drawn, images.moments(), channels=images.channels
    )


def _loose_source(what: str, drawn: Sampling, channels: int) -> ImageSource:
    images = LooseImages(what, drawn, channels=channels)
    return ImageSource(
        what,
        images.digest,
        len(images),
        images.sizes,
        images.read,
        drawn,
        remarks=images.remarks,
        left_out=images.left_out,
        channels=images.channels,
    )


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
