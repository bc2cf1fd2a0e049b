"""Batches for training and validation: decoded ahead by threads, in an order that does not depend on the number of threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import TypeVar

from smtool.data.batches import ImageBatch
from smtool.data.images.open import ImageShards
from smtool.data.order import batch_indices

_VALIDATION_WORKERS = 4
Request = TypeVar("Request")
Batch = TypeVar("Batch")


def training_batches(
    images: ImageShards, *, seed: int, batch: int, first: int, start: int, stop: int, workers: int, pin: bool = False,
    jpegs_on: str = "",
) -> Generator[ImageBatch]:
    """Yield positions start:stop of the global batches first, first + 1, ... endlessly, uint8; `close()` ends the threads.

    batch: size of the global batch. The slices of all ranks together are the batch of a run with one rank. pin: the threads put
    batches into pinned memory. jpegs_on: a GPU on which the threads have JPEG files decoded; the batches are then there.
    """
    if not 0 <= start < stop <= batch:
        raise ValueError(f"positions {start}:{stop} do not lie in a batch of {batch}")
    length = len(images)

    def read(indices: list[int]) -> ImageBatch:
        if jpegs_on:
            return images.read_jpegs(indices, jpegs_on)
        found = images.read_stored(indices)
        return found.pinned() if pin else found

    return prefetched(
        read, (batch_indices(length, seed=seed, batch=batch, index=k)[start:stop] for k in count(first)), workers
    )


def validation_batches(images: ImageShards, *, batch: int, first: int = 0, limit: int | None = None) -> Generator[ImageBatch]:
    """Yield images `first` to `limit` (default: all) once, in stored order (already shuffled); the last batch may be smaller."""
    stop = len(images) if limit is None else min(limit, len(images))
    pieces = (range(start, min(start + batch, stop)) for start in range(first, stop, batch))
    return prefetched(images.read, pieces, _VALIDATION_WORKERS)


def prefetched(read: Callable[[Request], Batch], requests: Iterable[Request], workers: int) -> Generator[Batch]:
    """Read batches in threads, a few in advance, and yield them in the order of the requests."""
    executor = ThreadPoolExecutor(max(1, workers), thread_name_prefix="images")
    pending: deque[Future[Batch]] = deque()
    try:
        for request in requests:
            pending.append(executor.submit(read, request))
            if len(pending) > workers + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
