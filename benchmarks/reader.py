"""Reading training batches: smtool by index in an exact shuffled order, webdataset as a stream with a shuffle buffer.

Both read the same shards of `builtin:photos`, decode with the same calls and return uint8 batches (B, C, H, W), which training
converts on its device; that both give the same images is checked before. smtool also compares checksums and gives ids; it uses
threads, webdataset worker processes. One epoch is timed, without start-up: webdataset's workers stay alive between epochs.
"""

import io
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import Row, timings
from smtool.data import ImageShards, open_images, training_batches
from smtool.data.images.prepare import Preparation, prepare_images
from smtool.data.images.sources import find_source
from smtool.data.images.transform import Rule

BATCH = 32
WORKERS = 2
Epoch = Callable[[], Iterator[Tensor]]
CASES = ((64, "png", 1024), (256, "png", 256), (256, "jpeg:95", 256))
"""Side in pixels, format, number of images per epoch."""


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as root:
        return [row for number, case in enumerate(CASES) for row in _rows(*case, Path(root) / str(number))]


def _rows(size: int, image_format: str, count: int, folder: Path) -> list[Row]:
    source = find_source(f"builtin:photos?train={count}&val=0")
    prepare_images(Preparation(source, Rule(size, image_format=image_format), images_per_shard=count // 8), folder, workers=1)
    images = open_images(str(folder), "train", image_size=size)
    rows = []
    for workers in (1, WORKERS):
        epochs = {"ours": _ours(images, workers), "webdataset": _webdataset(images, workers)}
        assert _digests(epochs["ours"]()) == _digests(epochs["webdataset"]()), "the epochs hold different images"
        candidates = {name: lambda epoch=epoch: sum(len(batch) for batch in epoch()) for name, epoch in epochs.items()}
        times = timings(candidates, repeats=9, warmup=2)
        ours, yardstick = (float(np.median(times[name])) / count for name in epochs)
        best = min(times["webdataset"]) / min(times["ours"])
        place = f"{workers} worker processes" if workers > 1 else "in the process"
        name = f"{size} px {image_format}, {workers} thread{'s' if workers > 1 else ''}"
        rows.append(Row(name, ours, "ms/image", yardstick, f"webdataset {place}", aim=1, best_ratio=best))
    return rows


def _ours(images: ImageShards, workers: int) -> Epoch:
    def epoch() -> Iterator[Tensor]:
        batches = training_batches(images, seed=0, batch=BATCH, first=0, start=0, stop=BATCH, workers=workers)
        with closing(batches):
            yield from (next(batches).images for _ in range(len(images) // BATCH))

    return epoch


def _webdataset(images: ImageShards, workers: int) -> Epoch:
    urls = [str(images.folder / shard.name) for shard in images.card.train]
    dataset = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000).map(_decoded)
    batched = dataset.batched(BATCH, collation_fn=_collated)
    if workers == 1:
        return lambda: iter(batched)
    loader = DataLoader(batched, batch_size=None, num_workers=workers, persistent_workers=True)
    return lambda: iter(loader)


def _decoded(sample: dict[str, bytes]) -> np.ndarray:
    file = io.BytesIO(sample["png"] if "png" in sample else sample["jpg"])
    return np.ascontiguousarray(np.asarray(Image.open(file)).transpose(2, 0, 1))


def _collated(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images))


def _digests(batches: Iterator[Tensor]) -> list[int]:
    return sorted(zlib.crc32(image.numpy().tobytes()) for batch in batches for image in batch)
