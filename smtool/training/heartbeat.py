"""Signs of life of the ranks, and last words, by which a waiting rank notices that another one has ended."""

import threading
import time

from torch.distributed import Store

from smtool.errors import RankLost, SmtoolError

BEAT_SECONDS = 5.0
SILENT_SECONDS = 120.0
"""A rank that has given no sign of life for so long is taken for lost."""
_PAUSES = (0.005, 0.2)
_FAILED = "smtool/failed"


class Heartbeat:
    """A thread of each rank that counts in the group's store, which the other ranks watch while they wait."""

    def __init__(self, store: Store, rank: int, world: int) -> None:
        self._store, self._rank, self._world = store, rank, world
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def wait_for(self, key: str) -> None:
        """Wait until a key is in the store. Raises RankLost if a rank has ended with an error, or gives no sign of life."""
        pause, longest = _PAUSES
        seen: dict[int, tuple[int, float]] = {}
        looked = time.monotonic()
        while not self._store.check([key]):
            if self._store.check([_FAILED]):
                raise lost(self._rank, self._world, self._store.get(_FAILED).decode())
            time.sleep(pause)
            pause = min(longest, 1.5 * pause)
            if time.monotonic() - looked > BEAT_SECONDS:
                looked = time.monotonic()
                self._look(seen)

    def _look(self, seen: dict[int, tuple[int, float]]) -> None:
        """seen: rank -> its count, and when that was first found."""
        for rank in set(range(self._world)) - {self._rank}:
            count, now = self._store.add(f"smtool/beat/{rank}", 0), time.monotonic()
            if rank not in seen or seen[rank][0] != count:
                seen[rank] = (count, now)
            elif now - seen[rank][1] > SILENT_SECONDS:
                raise lost(self._rank, self._world, f"rank {rank} has given no sign of life for {SILENT_SECONDS:.0f} seconds")

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self._store.add(f"smtool/beat/{self._rank}", 1)
            except RuntimeError:      # the store has ended, which the main thread notices too
                return


def say_failed(store: Store, rank: int, error: BaseException) -> None:
    """Tell the ranks that wait, or will wait, that this one ends with an error. Of several errors they read the first."""
    if isinstance(error, RankLost):
        return
    said = error.message if isinstance(error, SmtoolError) else type(error).__name__
    try:
        store.compare_set(_FAILED, "", f"rank {rank} has ended with an error ({said.rstrip('.')})")
    except RuntimeError:      # the store has ended before
        return


def lost(rank: int, world: int, what: str) -> RankLost:
    """The error of a rank that goes on alone."""
    return RankLost(
        f"Rank {rank} of {world} stops: {what}.",
        hint="The message of the rank that ended first says why. "
        "The same command resumes from the newest checkpoint, on any number of ranks.",
    )
