"""A worker process of a race: reads work from its standard input, does it, and answers on its standard output.

It ends when its parent is gone: a training run is then saved first, anything else is left for the next time.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import time
from typing import IO, Any

from smtool.errors import SmtoolError


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)      # what anything prints must not get between the answers
    import torch

    if os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(1)
    works: queue.Queue[Any] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(sys.stdin.buffer, works, busy), daemon=True).start()
    while (asked := works.get()) is not None:
        busy.set()
        answer = done(*asked)
        busy.clear()
        try:
            pickle.dump(answer, answers)
            answers.flush()
        except BrokenPipeError:      # the parent is gone; what was trained is saved
            os._exit(0)


def _read(questions: IO[bytes], works: "queue.Queue[Any]", busy: threading.Event) -> None:
    try:
        while True:
            works.put(pickle.load(questions))
    except EOFError:
        works.put(None)
        if busy.is_set():
            os.kill(os.getpid(), signal.SIGTERM)


def done(work: Any, place: Any) -> tuple[Any, float, float]:
    """(result or error, seconds of wall time, seconds of computing)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result: Any
    try:
        result = work.do(place)
    except SmtoolError as error:
        result = error
    except Exception as error:      # a fault of one racer must not end the race
        result = SmtoolError(f"internal error: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return result, time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
