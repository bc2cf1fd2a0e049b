"""A Python process that calls functions for its parent, one at a time.

The process is a new interpreter connected to the parent through pipes: it shares no state with the parent's torch and threads,
and does not run the caller's script again as multiprocessing would. It runs in its own session, so that Ctrl-C reaches the
parent only. If the parent ends during a call, the process sends itself SIGTERM: a training run saves its state and ends,
any other call is aborted.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, ParamSpec, TypeVar, cast

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""The environment of a process that computes with one thread."""
P = ParamSpec("P")
R = TypeVar("R")


class WorkerDied(Exception):
    """The process ended before it answered. exit_code: negative for a signal."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"the worker process died (exit code {exit_code}).")
        self.exit_code = exit_code


class WorkerProcess:
    """One process, started at the first call, and again if it died. environment: variables added to those of the parent.

    `call` may be used by one thread at a time; the other methods may be called from any thread.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in the process and return its result or raise its exception; everything is sent pickled.

        Raises WorkerDied if the process ends before it answers.
        """
        process = self._process = self._alive() or self._started()
        questions, answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        try:
            pickle.dump(pickle.dumps((function, args, kwargs)), questions)
            questions.flush()
            result, error = pickle.load(answers)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise WorkerDied(process.wait()) from error
        if error is not None:
            raise error
        return cast(R, result)

    def stop(self) -> None:
        """Send SIGTERM, on which a training run saves its state and ends; repeated calls have no further effect."""
        if process := self._alive():
            process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Close the pipe to an idle process and wait until it ends."""
        if self._process is not None:
            self._process.communicate()

    def kill(self) -> None:
        """Kill the process at once (SIGKILL) and wait until it ends."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _alive(self) -> subprocess.Popen[bytes] | None:
        return self._process if self._process is not None and self._process.poll() is None else None

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "smtool.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **self._environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )


def serve() -> None:
    """Main loop of the worker process: answer calls until the parent closes the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)      # redirect printed text to stderr: stdout carries the answers
    calls: queue.Queue[bytes | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(sys.stdin.buffer, calls, busy), daemon=True).start()
    while (call := calls.get()) is not None:
        busy.set()
        answer = _answer(call)
        busy.clear()
        try:
            answers.write(answer)
            answers.flush()
        except BrokenPipeError:      # the parent has ended; a training run has saved its state
            os._exit(0)


def _read(questions: IO[bytes], calls: "queue.Queue[bytes | None]", busy: threading.Event) -> None:
    try:
        while True:
            calls.put(pickle.load(questions))
    except EOFError:
        calls.put(None)
        if busy.is_set():
            os.kill(os.getpid(), signal.SIGTERM)


def _answer(call: bytes) -> bytes:
    """Call the pickled function; return a pickled (result, error)."""
    try:
        function, args, kwargs = pickle.loads(call)
        return pickle.dumps((function(*args, **kwargs), None))
    except Exception as error:
        return pickle.dumps((None, error))


if __name__ == "__main__":
    serve()
