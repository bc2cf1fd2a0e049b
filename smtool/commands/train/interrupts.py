"""Ctrl-C and SIGTERM as a request: the step is finished and saved first. A second Ctrl-C stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_HEARD = b"\nsmtool: stopping; what is under way is finished and saved first. Ctrl-C once more stops at once.\n"


class StopRequest:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        if number == signal.SIGINT:
            os.write(2, _HEARD)      # a signal may come within a print, which must not be entered again


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within this block SIGINT, SIGTERM (and SIGUSR1, which SLURM sends before a limit) set `asked` instead of killing."""
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
