"""Workers of a race. Each does one job at a time in its own process."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from smtool.commands.race.jobs import Job, Place
from smtool.errors import Interrupted, SmtoolError
from smtool.worker_process import ONE_THREAD, WorkerDied, WorkerProcess


@dataclass(frozen=True)
class Outcome:
    """Result of a job: its error or None, seconds of wall time, and seconds of all cores together."""

    error: SmtoolError | None
    seconds: float
    core_seconds: float


class Worker(Protocol):
    """Does one job at a time. `stop` may be called from another thread."""

    def do(self, job: Job) -> Outcome: ...

    def stop(self) -> None: ...

    def end(self) -> None: ...


class JobProcess:
    """A worker in its own process, on one device."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._process = WorkerProcess(ONE_THREAD if place.device == "cpu" else {})
        self._stopping = False

    def do(self, job: Job) -> Outcome:
        try:
            return self._process.call(_in_process, job, self.place)
        except WorkerDied as died:
            if self._stopping:
                return Outcome(Interrupted("Stopped."), 0.0, 0.0)
            return Outcome(SmtoolError(str(died), hint="It may be out of memory; try fewer --jobs."), 0.0, 0.0)

    def stop(self) -> None:
        """Request the job to save and end. May be called repeatedly."""
        self._stopping = True
        self._process.stop()

    def end(self) -> None:
        self._process.end()


def workers_on(devices: Sequence[str], count: int, weights_dir: Path | None) -> list[JobProcess]:
    """`count` workers, distributed over the devices in turn."""
    return [JobProcess(Place(devices[number % len(devices)], weights_dir)) for number in range(count)]


def outcome(job: Job, place: Place) -> Outcome:
    """Do a job in this process. Errors are returned, not raised, so that the failure of one racer does not end the race."""
    wall, cpu = time.perf_counter(), time.process_time()
    found: SmtoolError | None = None
    try:
        job.do(place)
    except SmtoolError as error:
        found = error
    except Exception as error:
        found = SmtoolError(f"internal error: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return Outcome(found, time.perf_counter() - wall, time.process_time() - cpu)


def _in_process(job: Job, place: Place) -> Outcome:
    import torch

    if os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(1)
    return outcome(job, place)
