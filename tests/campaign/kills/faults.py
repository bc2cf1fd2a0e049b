"""What happens to a victim: signals, an end at one of its file operations, a full disk, a lost file.

File operations are seen by an audit hook (open for writing, rename, remove, mkdir, rmdir), which can end the process or raise
OSError(ENOSPC) there. A full disk in the middle of a write is a limit on the size of files (EFBIG).
"""

import errno
import os
import resource
import signal
import sys
from dataclasses import dataclass
from random import Random
from typing import Any

KINDS = ("SIGKILL", "SIGTERM", "killed at a file operation", "no space at a file operation", "full disk", "lost shard")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


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
            sys.addaudithook(Operations(at, _no_space))
        elif self.kind == "full disk":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            largest = int(10 ** (1 + 4 * self.moment / 1.1))
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))


class Operations:
    """An audit hook that counts file operations and calls `act` at one of them."""

    def __init__(self, at: int, act: Any) -> None:
        self.at, self.act, self.count = at, act, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _OPERATIONS and not (event == "open" and _is_writing(arguments)):
            return
        self.count += 1
        if self.count == self.at + 1:
            self.act()


def _is_writing(arguments: tuple[Any, ...]) -> bool:
    path, _, flags = arguments
    return isinstance(flags, int) and bool(flags & _WRITING) and not str(path).startswith("/dev/")


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
