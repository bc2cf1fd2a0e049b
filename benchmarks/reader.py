"""Reading training batches: smtool by index in an exact shuffled order, webdataset as a stream with a shuffle buffer.

Both read the same shards of `builtin:photos`, decode with the same calls and return the same uint8 batches (B, C, H, W), which
training converts on its device; smtool uses threads, webdataset worker processes. One epoch is timed, without start-up:
webdataset's workers stay alive between epochs.
"""

import io
import tempfile
from collections.abc import Callable
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
SIZES = {64: 1024, 256: 256}
"""Number of images per epoch, by their side in pixels."""


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as root:
        return [row for size, count in SIZES.items() for row in _rows(size, count, Path(root) / str(size))]


def _rows(size: int, count: int, folder: Path) -> list[Row]:
    source = find_source(f"builtin:photos?train={count}&val=0")
    prepare_images(Preparation(source, Rule(size), images_per_shard=count // 8), folder, workers=1)
    images = open_images(str(folder), "train", image_size=size)
    rows = []
    for workers in (1, WORKERS):
        candidates = {"ours": _ours(images, workers), "webdataset": _webdataset(images, workers)}
        times = timings(candidates, repeats=9, warmup=2)
        ours, yardstick = (float(np.median(times[name])) / count for name in candidates)
        best = min(times["webdataset"]) / min(times["ours"])
        place = f"{workers} worker processes" if workers > 1 else "in the process"
        name = f"{size} px PNG, {workers} thread{'s' if workers > 1 else ''}"
        rows.append(Row(name, ours, "ms/image", yardstick, f"webdataset {place}", aim=1, best_ratio=best))
    return rows


def _ours(images: ImageShards, workers: int) -> Callable[[], None]:
    def epoch() -> None:
        batches = training_batches(images, seed=0, batch=BATCH, first=0, start=0, stop=BATCH, workers=workers)
        for _ in range(len(images) // BATCH):
            next(batches)
        batches.close()

    return epoch


def _webdataset(images: ImageShards, workers: int) -> Callable[[], None]:
    urls = [str(images.folder / shard.name) for shard in images.card.train]
    dataset = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000).map(_decoded)
    batched = dataset.batched(BATCH, collation_fn=_collated)
    if workers == 1:
        return lambda: [None for _ in batched] and None
    loader = DataLoader(batched, batch_size=None, num_workers=workers, persistent_workers=True)
    return lambda: [None for _ in loader] and None


def _decoded(sample: dict[str, bytes]) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(Image.open(io.BytesIO(sample["png"]))).transpose(2, 0, 1))


def _collated(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images))
