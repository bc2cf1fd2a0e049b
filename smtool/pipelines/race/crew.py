"""The worker processes of a race, seen from the parent."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from smtool.errors import Interrupted, SmtoolError
from smtool.pipelines.race.work import Place, Work


@dataclass(frozen=True)
class Answer:
    """What came of a piece of work: a result or an error, and what it cost."""

    result: Any
    seconds: float
    core_seconds: float

    @property
    def error(self) -> SmtoolError | None:
        return self.result if isinstance(self.result, SmtoolError) else None


class Worker(Protocol):
    """Does one piece of work at a time. `stop` may come from another thread."""

    def do(self, work: Work) -> Answer: ...

    def stop(self) -> None: ...

    def end(self) -> None: ...


class Process:
    """One process on one device; started when it is first needed, and again if it died."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def do(self, work: Work) -> Answer:
        process = self._process = self._alive() or self._started()
        try:
            questions, answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
            pickle.dump((work, self.place), questions)
            questions.flush()
            return Answer(*pickle.load(answers))
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code = process.wait()
            if self._stopping:
                return Answer(Interrupted("Stopped."), 0.0, 0.0)
            error = SmtoolError(f"the worker process died (exit code {code}).", hint="Memory may have run out; try fewer --jobs.")
            return Answer(error, 0.0, 0.0)

    def stop(self) -> None:
        """Ask to save and end; asking again is harmless."""
        self._stopping = True
        if process := self._alive():
            process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """At the end of a race, when there is nothing to do any more."""
        if self._process is not None:
            cast(IO[bytes], self._process.stdin).close()
            self._process.wait()
            cast(IO[bytes], self._process.stdout).close()

    def _alive(self) -> subprocess.Popen[bytes] | None:
        return self._process if self._process is not None and self._process.poll() is None else None

    def _started(self) -> subprocess.Popen[bytes]:
        """Outside the terminal's process group: a Ctrl-C reaches the parent, which asks the workers to save."""
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if self.place.device == "cpu" else {}
        environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.Popen(
            [sys.executable, "-m", "smtool.pipelines.race.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )


def crew(devices: Sequence[str], jobs: int, weights_dir: Path | None) -> list[Process]:
    """`jobs` workers, on the devices in turn."""
    return [Process(Place(devices[number % len(devices)], weights_dir)) for number in range(jobs)]
