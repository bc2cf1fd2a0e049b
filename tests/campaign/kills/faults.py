"""What happens to a victim: signals, an end at one of its file operations, a full disk, a lost file.

File operations are seen by an audit hook (open for writing, rename, remove, mkdir, rmdir), which can end the process or raise
OSError(ENOSPC) there. A full disk in the middle of a write is a limit on the size of files (EFBIG).
"""

import errno
import os
import resource
import signal
import sys
from collections.abc import Set
from dataclasses import dataclass
from random import Random
from typing import Any

KINDS = ("SIGKILL", "SIGTERM", "killed at a file operation", "no space at a file operation", "full disk", "lost shard")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CREATING = {"os.rename", "os.mkdir"}  # removing a file needs no space
_OPERATIONS = _CREATING | {"os.remove", "os.rmdir", "os.truncate"}


@dataclass(frozen=True)
class Fault:
    """moment: in [0, 1.1] of the undisturbed duration or number of file operations; lose: which file is lost, in [0, 1]."""

    kind: str
    moment: float
    lose: float

    @classmethod
    def drawn(cls, rng: Random, kinds: tuple[str, ...] = KINDS) -> "Fault":
        return cls(rng.choice(kinds), rng.random() * 1.1, rng.random())

    @property
    def signal(self) -> int | None:
        return {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}.get(self.kind)

    def begin(self, operations: int) -> None:
        """Called in the victim. operations: number of file operations of an undisturbed run."""
        at = int(self.moment / 1.1 * operations)
        if self.kind in ("killed at a file operation", "lost shard"):
            sys.addaudithook(Operations(at, _end))
        elif self.kind == "no space at a file operation":
            sys.addaudithook(Operations(at, _no_space, _CREATING))
        elif self.kind == "full disk":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            largest = int(10 ** (1 + 4 * self.moment / 1.1))
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))


class Operations:
    """An audit hook that counts file operations and calls `act` at number `at`, or at the first after it among `events`."""

    def __init__(self, at: int, act: Any, events: Set[str] = _OPERATIONS) -> None:
        self.at, self.act, self.events, self.count, self.acted = at, act, events, 0, False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        opening = event == "open" and _is_writing(arguments)
        if event not in _OPERATIONS and not opening:
            return
        self.count += 1
        if self.count > self.at >= 0 and not self.acted and (opening or event in self.events):
            self.acted = True
            self.act()


def _is_writing(arguments: tuple[Any, ...]) -> bool:
    path, _, flags = arguments
    return isinstance(flags, int) and bool(flags & _WRITING) and not str(path).startswith("/dev/")


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
