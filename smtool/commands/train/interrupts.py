"""Handling of Ctrl-C and SIGTERM: the current step is finished and saved first. A second Ctrl-C stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_HEARD = b"\nsmtool: stopping; the current step is finished and saved first. Press Ctrl-C again to stop at once.\n"


class StopRequest:
    """asked: whether a stop was requested."""

    def __init__(self) -> None:
        self.asked = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        if number == signal.SIGINT:
            os.write(2, _HEARD)      # not print, which is not safe in a signal handler


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Context in which SIGINT, SIGTERM and SIGUSR1 (sent by SLURM before a time limit) set `asked` instead of killing."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
    before: dict[Any, Any] = {number: signal.signal(number, request.handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
