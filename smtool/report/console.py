"""Console output of a command: one live line on a terminal, plain lines elsewhere, and a copy in log.txt.

Only rank 0 prints. NO_COLOR and dumb terminals are respected (by rich). This module does not import torch.
"""

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

Report = Callable[[int, int | None], None]


class Console:
    """Prints text, tables and progress lines. quiet: print nothing, but write the log.

    `log_file` may be set later, when the run folder is known.
    """

    def __init__(
        self, log: Path | None = None, quiet: bool = False, *, file: TextIO | None = None, seconds_between_lines: float = 10.0
    ) -> None:
        self.log_file = log
        self.seconds_between_lines = seconds_between_lines
        self._is_first_rank = os.environ.get("RANK", "0") == "0"
        self._rich = RichConsole(file=file, quiet=quiet or not self._is_first_rank, highlight=False)
        self._live: Live | None = None
        self._lines: list[_Line] = []

    @property
    def is_live(self) -> bool:
        """Whether lines are redrawn in place: on a terminal that is not dumb, if not quiet. FORCE_COLOR has no effect."""
        rich = self._rich
        return not rich.quiet and not rich.is_dumb_terminal and bool(getattr(rich.file, "isatty", lambda: False)())

    def print(self, *renderables: RenderableType) -> None:
        """Print text or rich renderables such as tables. Markup in text is not interpreted."""
        self._rich.print(*renderables, markup=False, soft_wrap=all(isinstance(item, str) for item in renderables))

    def rule(self, title: str) -> None:
        self._rich.rule(Text(title), align="left")

    def log(self, line: str) -> None:
        """Print a line, and append it with the date and time to the log file."""
        self.print(line)
        self._append(line)

    @contextmanager
    def training(self, steps: int, *, first_step: int = 0) -> Iterator["TrainingLine"]:
        """Show the line of a training run. first_step: number of steps already done; steps: total number."""
        line = TrainingLine(steps, first_step)
        with self._showing(line):
            yield line

    @contextmanager
    def progress(self, description: str, *, unit: str = "images") -> Iterator[Report]:
        """Show a progress line; yield a callable `(done, total)` that updates it. total: None while it is unknown."""
        line = ProgressLine(description, unit)
        with self._showing(line):
            yield line.update

    @contextmanager
    def _showing(self, line: "_Line") -> Iterator[None]:
        """Redraw the line in place below the lines already shown, or print it at intervals. Its last state stays shown."""
        line.changed_hook = lambda: self._say_now_and_then(line)
        self._lines.append(line)
        self._refresh_live()
        try:
            yield
        finally:
            self._lines.remove(line)
            was_live = self.is_live
            self._refresh_live()
            if not line.said:
                self._say(line)
            if was_live and line.said_at > 0:
                self.print(line.text())

    def _say_now_and_then(self, line: "_Line") -> None:
        line.said = False
        if time.monotonic() - line.said_at >= self.seconds_between_lines:
            self._say(line)

    def _say(self, line: "_Line") -> None:
        line.said, line.said_at = True, time.monotonic()
        self._append(line.text())
        if not self.is_live:
            self.print(line.text())

    def _refresh_live(self) -> None:
        if self._lines and self._live is None and self.is_live:
            self._live = Live(get_renderable=self._drawn, console=self._rich, transient=True, refresh_per_second=4)
            self._live.start()
        elif not self._lines and self._live is not None:
            self._live.stop()
            self._live = None

    def _drawn(self) -> RenderableType:
        return Group(*(Text(line.text(), no_wrap=True, overflow="ellipsis") for line in self._lines))

    def _append(self, line: str) -> None:
        if self.log_file is None or not self._is_first_rank:
            return
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")


class _Line:
    """A line that changes. text(): its current state; said: whether this state was printed or logged; said_at: time of the last
    printed state, in seconds of the monotonic clock."""

    said = True
    said_at = -math.inf
    changed_hook: Callable[[], None]

    def text(self) -> str:
        raise NotImplementedError


class TrainingLine(_Line):
    """Line with step/steps, speed, time left, losses, memory, next checkpoint. Narrow terminals cut off the end."""

    def __init__(self, steps: int, first_step: int) -> None:
        self._steps = steps
        self._speed = Speed(first_step)
        self._step = first_step
        self._updates: int | None = None
        self._next_checkpoint: int | None = None
        self._images_per_second: float | None = None
        self._values: dict[str, float] = {}

    def update(
        self,
        step: int,
        values: Mapping[str, float] | None = None,
        images_per_second: float | None = None,
        next_checkpoint: int | None = None,
        *,
        updates: int | None = None,
    ) -> None:
        """Show that `step` is done. Without values, the last ones stay. updates: number of autoencoder updates so far."""
        self._step, self._updates, self._next_checkpoint = step, updates, next_checkpoint
        self._images_per_second = images_per_second if images_per_second is not None else self._images_per_second
        self._values = dict(values) if values else self._values
        self._speed.reached(step)
        self.changed_hook()

    def text(self) -> str:
        rate = self._speed.per_second()
        parts = [f"step {self._step:,}/{self._steps:,}"]
        if self._updates is not None and self._updates != self._step:
            parts[0] += f" ({self._updates:,} autoencoder updates)"
        if rate:
            parts.append(f"{_number(rate)} it/s")
        if self._images_per_second is not None:
            parts.append(f"{_number(self._images_per_second)} images/s")
        parts.append(f"ETA {duration((self._steps - self._step) / rate) if rate else '?'}")
        parts += [f"{name} {_number(value)}" for name, value in self._values.items()]
        if (memory := peak_memory()) is not None:
            parts.append(f"{memory / 1e9:.1f} GB" if memory >= 1e9 else f"{memory / 1e6:.0f} MB")
        if self._next_checkpoint is not None:
            parts.append(f"next checkpoint {self._next_checkpoint:,}")
        return "  ".join(parts)


class ProgressLine(_Line):
    """Line with a description, done/total, speed and time left."""

    def __init__(self, description: str, unit: str) -> None:
        self._description, self._unit = description, unit
        self._done = 0
        self._total: int | None = None
        self._speed: Speed | None = None

    def update(self, done: int, total: int | None) -> None:
        self._speed = self._speed or Speed(done)      # work that a restarted command finds done does not count
        self._speed.reached(done)
        self._done, self._total = done, total
        self.changed_hook()

    def text(self) -> str:
        count = f"{self._done:,}" if self._total is None else f"{self._done:,}/{self._total:,}"
        parts = [self._description, f"{count} {self._unit}"]
        if self._speed is not None and (rate := self._speed.per_second()):
            parts.append(f"{_number(rate)} {self._unit}/s")
            if self._total is not None:
                parts.append(f"ETA {duration((self._total - self._done) / rate)}")
        return "  ".join(parts)


class Speed:
    """Counts per second over the last 100 reports, so that a slow start or an evaluation affects it only for a while."""

    def __init__(self, start: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports = deque([(clock(), start)], maxlen=100)

    def reached(self, count: int) -> None:
        self._reports.append((self._clock(), count))

    def per_second(self) -> float:
        """Counts per second; 0.0 before the first report."""
        (start, first), (now, last) = self._reports[0], self._reports[-1]
        return (last - first) / (now - start) if now > start else 0.0


def duration(seconds: float) -> str:
    """Seconds as text: 4:05, 2:04:05 or 3 d 2:04:05."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{days} d {clock}" if days else clock


def peak_memory() -> int | None:
    """Peak memory of this process in bytes: of the GPU if one is in use, else resident memory; None if unknown (Windows)."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_reserved())
    try:
        import resource
    except ImportError:      # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _number(value: float) -> str:
    """Three significant digits; exponents only below 0.001 and from a million on."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        digits = 0 if abs(value) >= 100 else 2 - math.floor(math.log10(abs(value))) if value else 0
        return f"{value:,.{digits}f}"
    return f"{value:.2e}"
