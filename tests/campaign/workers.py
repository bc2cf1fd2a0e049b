"""Forked processes that run cases, with limits on time and memory; they are started again when they die.

A case may use 10 s of computing and 40 s in all (alarms; a process that does not react is killed) and 2 GiB beyond what the
imports take. Each finished case is one line of a JSONL file, so that a campaign that was stopped goes on after its last case.
"""

import json
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import torch
import torch._dynamo  # the optimizer imports it, which takes seconds

from campaign.sandbox import Case, End, Sandbox, TimeUp

SECONDS, WAITING, MEMORY = 10, 40, 2 << 30
_STDERR = os.dup(2)
_GRACE = 10
_RENEW = 9
MakeCase = Callable[[int, Random, Sandbox], tuple[str, Case]]


class Ledger:
    """The JSONL file of a campaign."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def rows(self) -> Iterator[dict[str, object]]:
        if self.path.exists():
            for line in self.path.read_text(errors="replace").splitlines():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:  # cut off by a kill
                    continue

    def done(self) -> set[int]:
        return {int(row["case"]) for row in self.rows()}  # type: ignore[call-overload]

    def add(self, row: dict[str, object]) -> None:
        """Append one line in a single write, so that processes may share the file."""
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(handle, (json.dumps(row) + "\n").encode(errors="backslashreplace"))
        os.close(handle)


def run_cases(make: MakeCase, numbers: list[int], ledger: Ledger, *, seed: int, scratch: Path, workers: int) -> None:
    """Run the cases with these numbers that the ledger does not hold yet. make(number, generator, sandbox) -> (kind, case)."""
    done = ledger.done()
    todo = [[n for n in numbers[start::workers] if n not in done] for start in range(workers)]
    slots = [_Slot(make, part, ledger, seed, scratch / f"worker-{number}") for number, part in enumerate(todo)]
    while sum(slot.is_busy() for slot in slots):  # not any(): every slot is looked after
        time.sleep(0.1)


class _Slot:
    """One worker process after the other, until its cases are done."""

    def __init__(self, make: MakeCase, todo: list[int], ledger: Ledger, seed: int, scratch: Path) -> None:
        self.make, self.todo, self.ledger, self.seed = make, todo, ledger, seed
        self.box = Sandbox(scratch / "a/b/c/box")
        self.mark = scratch / "current"
        scratch.mkdir(parents=True, exist_ok=True)
        self.process = 0

    def is_busy(self) -> bool:
        if not self.process:
            if not self.todo:
                return False
            self._start()
            return True
        ended, status = os.waitpid(self.process, os.WNOHANG)
        position, began = self._current()
        if not ended:
            if position >= 0 and time.time() - began > WAITING + _GRACE:
                os.kill(self.process, signal.SIGKILL)
            return True
        self.process = 0
        if status and position >= 0 and os.waitstatus_to_exitcode(status) != _RENEW:
            self.ledger.add(
                {"case": self.todo[position], "kind": "?", "ended": "died", "fault": f"process died, status {status}"}
            )
        self.todo = self.todo[position + 1 :] if status else []
        return bool(self.todo)

    def _current(self) -> tuple[int, float]:
        return struct.unpack("<qd", self.mark.read_bytes())

    def _start(self) -> None:
        self.mark.write_bytes(struct.pack("<qd", -1, time.time()))
        sys.stdout.flush()
        self.process = os.fork()
        if self.process == 0:
            try:
                self._work()
            except BaseException:
                os.write(
                    _STDERR, f"campaign: case {self.todo[self._current()[0]]} was not made: {traceback.format_exc()}".encode()
                )
                os._exit(3)
            os._exit(0)

    def _work(self) -> None:
        torch.set_num_threads(1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        silence()
        limit_memory(MEMORY)
        signal.signal(signal.SIGALRM, _alarm)
        signal.signal(signal.SIGPROF, _alarm)
        handle = os.open(self.mark, os.O_WRONLY)
        for position, number in enumerate(self.todo):
            os.pwrite(handle, struct.pack("<qd", position, time.time()), 0)
            row = run_one(self.make, number, self.seed, self.box)
            self.ledger.add(row)
            if row["ended"] == "time":  # the alarm may have left a torch mode switched on
                os._exit(_RENEW)


def run_one(make: MakeCase, number: int, seed: int, box: Sandbox) -> dict[str, object]:
    """Run a case and return its row."""
    box.clear()
    began = time.perf_counter()
    kind, case = make(number, Random(f"{seed}/{number}"), box)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of this process: other programs may slow it down
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    try:
        end = box.run(case)
    except TimeUp:  # after the call, while its end was judged
        end = End("time", "over 10 s")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    spent = round(1e3 * (time.perf_counter() - began), 1)
    return {"case": number, "kind": kind, "tried": case.tried[:300], "ms": spent, **end.row()}


def silence() -> None:
    """Nothing of a case is printed."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)


def limit_memory(more: int) -> None:
    """Allow `more` bytes beyond the present size of the process's private data."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
    limit = int(line.split()[1]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _alarm(number: int, frame: object) -> None:
    raise TimeUp
