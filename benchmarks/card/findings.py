"""The results of a run: a JSON file that is written anew with every row, and lines for the console."""

import json
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from smtool.storage import write_bytes

Row = dict[str, Any]


class OutOfTime(Exception):
    """The time limit of a row."""


class Findings:
    """Rows by part, in the order in which they were found. seconds: of the whole run; later rows are not begun."""

    def __init__(self, path: Path, facts: Row, seconds: float) -> None:
        self.path, self.facts = path, facts
        self.rows: list[Row] = []
        self._stop = time.monotonic() + seconds
        self._write()

    def add(self, part: str, name: str, find: Callable[[], Row], *, seconds: float) -> Row:
        """Find a row within a time limit. What is raised becomes its outcome: a row never ends the run."""
        began = time.monotonic()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            row = {"part": part, "name": name, **self._found(find, min(seconds, self._stop - began))}
        said = sorted({str(one.message).splitlines()[0] for one in warned if "Triton kernels" in str(one.message)})
        if said:      # PyTorch's functions ran instead
            row |= {"outcome": "failed", "warnings": said}
        row["wall_s"] = round(time.monotonic() - began, 2)
        self.rows.append(row)
        self._write()
        print(line(row), flush=True)
        return row

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.rows if row["outcome"] not in ("ok", "not run")]

    def _found(self, find: Callable[[], Row], seconds: float) -> Row:
        if seconds <= 0:
            return {"outcome": "not run", "reason": "the time of the whole run was used up"}
        try:
            with limited(seconds):
                return {"outcome": "ok", **find()}
        except OutOfTime:
            return {"outcome": "not run", "reason": f"not finished within {seconds:.3g} s"}
        except Exception as error:      # a fault of one method must not hide the results of the others
            last = traceback.extract_tb(error.__traceback__)[-1]
            text = (str(error).splitlines() or [""])[0]
            return {"outcome": "failed", "reason": f"{type(error).__name__}: {text}", "at": f"{last.filename}:{last.lineno}"}

    def _write(self) -> None:
        write_bytes(self.path, json.dumps({**self.facts, "rows": self.rows}, indent=1).encode())


def line(row: Row) -> str:
    """A row for the console."""
    shown = {key: value for key, value in row.items() if key not in ("part", "name", "outcome")}
    return f"{row['outcome']:8}{row['part']}: {row['name']}  " + ", ".join(f"{key} {_short(one)}" for key, one in shown.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block after some seconds, at the next line of Python."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
