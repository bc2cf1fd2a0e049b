"""A thread that consumes items behind the one that makes them, with errors and interruptions of either seen by both."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from queue import Full, Queue
from typing import TypeVar

Item = TypeVar("Item")
_LOOK_SECONDS = 0.1


class _Word(Enum):
    END = "all items were handed over"
    ABANDON = "the maker of items has failed"


class _Abandoned(Exception):
    """Raised in the thread, so that files are left as by an interruption."""


@contextmanager
def consumed_behind(consume: Callable[[Iterator[Item]], None], *, waiting: int) -> Iterator[Callable[[Item], None]]:
    """Run `consume` in a thread on the items that are handed to the function that is yielded; the end of the block waits for it.

    waiting: largest number of items in between; handing over waits for a place. An error of `consume` is raised by the next
    handing over, or at the end of the block. If the block raises, so does the iterator in the thread, and `consume` must not
    finish what it began.
    """
    items: Queue[Item | _Word] = Queue(waiting)

    def handed() -> Iterator[Item]:
        while (item := items.get()) is not _Word.END:
            if isinstance(item, _Word):
                raise _Abandoned
            yield item

    with ThreadPoolExecutor(1, thread_name_prefix="cache") as executor:
        future = executor.submit(consume, handed())
        try:
            yield lambda item: _hand(items, item, future)
        except BaseException:
            _tell(items, _Word.ABANDON, future)
            raise
        _tell(items, _Word.END, future)
        future.result()


def _hand(items: "Queue[Item | _Word]", item: Item, future: "Future[None]") -> None:
    """Put an item into the queue. Raises the error of a consumer that has ended."""
    if not _tell(items, item, future):
        future.result()
        raise RuntimeError("the consumer ended before it had all items")


def _tell(items: "Queue[Item | _Word]", item: Item | _Word, future: "Future[None]") -> bool:
    """Put it into the queue, unless the consumer has ended. Returns whether it was put there."""
    while not future.done():
        try:
            items.put(item, timeout=_LOOK_SECONDS)
            return True
        except Full:
            continue
    return False
