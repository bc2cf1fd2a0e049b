"""The worker processes of `prepare`: entries in, samples out, in the order of the entries.

Each is a fresh interpreter that is spoken to through pipes. It imports little, shares nothing with a parent that has torch and
threads, does not run the caller's script again as multiprocessing would, and ends by itself when its parent is gone.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import IO, cast

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
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    with ExitStack() as stack:
        for _ in range(workers):
            worker = _Worker(rule)
            stack.callback(worker.end)
            idle.put(worker)
        executor = ThreadPoolExecutor(workers)  # a thread per worker, which waits for its answers
        stack.callback(executor.shutdown, cancel_futures=True)
        yield _in_order(executor, idle, _chunks(entries), workers * _AHEAD)


class _Worker:
    """A worker process, seen from the parent."""

    def __init__(self, rule: Rule) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "smtool.datasets.workers"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.rule = rule

    def make(self, entries: list[Entry]) -> list[Sample | Skipped]:
        questions, answers = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        try:
            pickle.dump((entries, self.rule), questions)
            questions.flush()
            answer = pickle.load(answers)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise DataError(
                "A worker process of `prepare` died.", hint="Memory may have run out; try fewer --workers."
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return cast(list[Sample | Skipped], answer)

    def end(self) -> None:
        self.process.kill()  # it owns nothing that could be left half done
        self.process.communicate()


def _in_order(
    executor: ThreadPoolExecutor, idle: "queue.SimpleQueue[_Worker]", chunks: Iterable[list[Entry]], ahead: int
) -> Iterator[Sample | Skipped]:
    def make(chunk: list[Entry]) -> list[Sample | Skipped]:
        worker = idle.get()
        try:
            return worker.make(chunk)
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


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """In the worker: answer until the parent closes the pipe, or is gone."""
    while True:
        try:
            entries, rule = pickle.load(questions)
        except EOFError:
            return
        try:
            answer: list[Sample | Skipped] | Exception = make_samples(entries, rule)
        except Exception as error:  # for the parent to raise
            answer = error
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not end up among the answers
    _serve(sys.stdin.buffer, pipe)
