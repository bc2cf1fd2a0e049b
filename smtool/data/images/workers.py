"""The worker processes of `prepare`: they turn entries into samples, in the order of the entries."""

import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice

from smtool.data.images.entries import Entry, Sample, Skipped, make_samples
from smtool.data.images.transform import Rule
from smtool.errors import DataError
from smtool.worker_process import WorkerDied, WorkerProcess

_CHUNK = 16
_AHEAD = 4  # chunks in flight per worker


@contextmanager
def made_samples(entries: Iterable[Entry], rule: Rule, workers: int) -> Iterator[Iterator[Sample | Skipped]]:
    """Context with an iterator over the samples; the workers end with it. With workers = 1, this process does the work."""
    if workers <= 1:
        yield (sample for chunk in _chunks(entries) for sample in make_samples(chunk, rule))
        return
    idle: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
    with ExitStack() as stack:
        for _ in range(workers):
            worker = WorkerProcess()
            stack.callback(worker.kill)  # safe: a worker writes no files
            idle.put(worker)
        executor = ThreadPoolExecutor(workers)  # one thread per worker process, waiting for its results
        stack.callback(executor.shutdown, cancel_futures=True)
        yield _in_order(executor, idle, _chunks(entries), rule, workers * _AHEAD)


def _in_order(
    executor: ThreadPoolExecutor,
    idle: "queue.SimpleQueue[WorkerProcess]",
    chunks: Iterable[list[Entry]],
    rule: Rule,
    ahead: int,
) -> Iterator[Sample | Skipped]:
    def make(chunk: list[Entry]) -> list[Sample | Skipped]:
        worker = idle.get()
        try:
            return worker.call(make_samples, chunk, rule)
        except WorkerDied as died:
            raise DataError("A worker process of `prepare` died.", hint="Memory may have run out; try fewer --workers.") from died
        finally:
            idle.put(worker)

    pending: deque[Future[list[Sample | Skipped]]] = deque()
    for chunk in chunks:
        pending.append(executor.submit(make, chunk))
        if len(pending) >= ahead:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    iterator = iter(entries)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
