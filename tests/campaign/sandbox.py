"""The folder in which one case runs, and how its end is judged."""

import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from smtool.cli import INTERNAL_ERROR, _report
from smtool.errors import OutOfMemory, SmtoolError

EXIT_CODES = (2, 3, 4, 6, 7, 130)
_LONGEST = 6000  # characters of a message, which may list several problems


class TimeUp(BaseException):
    """The alarm of a case. Not an Exception, so that the code under test does not catch it."""


@dataclass(frozen=True)
class Case:
    """tried: what was changed; act: the call. memory: whether running out of memory is an answer (networks of any size)."""

    tried: str
    act: Callable[[], object]
    memory: bool = False


@dataclass(frozen=True)
class End:
    """How a case ended. fault: empty if it ended as it should, else one line that is the same for equal faults.

    said: the beginning of the message.
    """

    ended: str
    fault: str = ""
    trace: str = ""
    said: str = ""

    def row(self) -> dict[str, str]:
        return {key: value for key, value in asdict(self).items() if value}


class Sandbox:
    """place/inside holds the input, place/out is the working directory and the only folder that may change."""

    def __init__(self, place: Path) -> None:
        self.place, self.inside, self.out = place, place / "inside", place / "out"

    def clear(self) -> None:
        os.chdir("/")
        shutil.rmtree(self.place, ignore_errors=True)
        self.inside.mkdir(parents=True)
        self.out.mkdir()
        (self.place / "beside.txt").write_text("must not change")
        os.chdir(self.out)

    def run(self, case: Case) -> End:
        before = set(self._listing())
        end = judged(case)
        if (after := set(self._listing())) != before:
            changed = sorted(name for name, *_ in before ^ after)
            fault = f"changed outside the output folder: {[Path(name).name for name in changed][:3]}"
            return replace(end, fault=fault)
        return end

    def _listing(self) -> Iterator[tuple[str, int, int, int]]:
        """(path, mode, size, time of the last change) of everything outside `out`."""
        folders = [str(self.place)]
        while folders:
            with os.scandir(folders.pop()) as found:
                for item in found:
                    state = item.stat(follow_symlinks=False)
                    if item.is_dir(follow_symlinks=False):
                        if item.path != str(self.out):
                            folders.append(item.path)
                            yield item.path, state.st_mode, 0, 0
                    else:
                        yield item.path, state.st_mode, state.st_size, state.st_mtime_ns


def judged(case: Case) -> End:
    """Run a case: success, or an SmtoolError with a sentence and an exit code of the table, is right; all else is a fault."""
    try:
        case.act()
    except SmtoolError as error:
        return End(type(error).__name__, _message_fault(error), said=str(error)[:200])
    except TimeUp:
        return End("time", f"over 10 s at {_frames()}", traceback.format_exc()[-3000:])
    except SystemExit as error:
        return End("exit", f"SystemExit({error.code})", traceback.format_exc()[-3000:])
    except Exception as error:
        if _report(error) == OutOfMemory.exit_code and case.memory:
            return End("memory")
        if _report(error) not in (INTERNAL_ERROR, OutOfMemory.exit_code):
            return End(type(error).__name__)
        return End("error", f"{type(error).__name__} at {_frames()}: {_first_words(error)}", traceback.format_exc()[-3000:])
    return End("success")


def _message_fault(error: SmtoolError) -> str:
    text = str(error)
    if error.exit_code not in EXIT_CODES:
        return f"exit code {error.exit_code} of {type(error).__name__}"
    if not error.message.strip() or "Traceback (most recent" in text:
        return f"no sentence in {type(error).__name__} at {_frames()}"
    return f"a message of {len(text)} characters at {_frames()}" if len(text) > _LONGEST else ""


def _frames() -> str:
    """The innermost frame of smtool, and the innermost frame of all."""
    stack = traceback.extract_tb(sys.exc_info()[2])
    ours = [frame for frame in stack if "/smtool/" in frame.filename]
    shown = [*ours[-1:], *stack[-1:]]
    return " > ".join(dict.fromkeys(f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.name}" for frame in shown))


def _first_words(error: Exception) -> str:
    words = (str(error).splitlines() or [""])[0]
    plain = re.sub(r"'[^']*'|\"[^\"]*\"|/[^ ]*", "...", words)
    return re.sub(r"\d+", "#", plain)[:40]
