"""The worker processes of `prepare`: entries in, samples out, in the order of the entries.

Workers are spawned, not forked: they share no lock or thread with a parent that has torch loaded, and import little themselves.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice

from smtool.datasets.entries import Entry, Sample, Skipped, make_samples
from smtool.datasets.transform import Rule
from smtool.errors import DataError

_CHUNK = 16
_AHEAD = 4  # chunks in flight per worker


@contextmanager
def made_samples(entries: Iterable[Entry], rule: Rule, workers: int) -> Iterator[Iterator[Sample | Skipped]]:
    """An iterator over the finished samples, while the workers are alive. One worker means this process."""
    if workers <= 1:
        yield (sample for chunk in _chunks(entries) for sample in make_samples(chunk, rule))
        return
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_settle)
    try:
        yield _in_order(executor, _chunks(entries), rule, workers * _AHEAD)
    except BrokenProcessPool as error:
        raise DataError("A worker process of `prepare` died.", hint="Memory may have run out; try fewer --workers.") from error
    finally:
        executor.shutdown(cancel_futures=True)


def _in_order(executor: ProcessPoolExecutor, chunks: Iterable[list[Entry]], rule: Rule, ahead: int) -> Iterator[Sample | Skipped]:
    pending: deque[Future[list[Sample | Skipped]]] = deque()
    for chunk in chunks:
        pending.append(executor.submit(make_samples, chunk, rule))
        if len(pending) >= ahead:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    iterator = iter(entries)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _settle() -> None:
    """In a new worker: leave Ctrl-C to the parent, and end when the parent is gone, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
