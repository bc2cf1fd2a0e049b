"""The `smtool` command: parse the arguments, call one pipeline, turn errors into exit codes. Imports no torch."""

import errno
import io
import sys
import traceback

from smtool import errors
from smtool.cli.app import app
from smtool.cli.options import first_line

# Imported in the order in which --help lists the commands.
# isort: off
from smtool.cli import prepare, train, sample, evaluate, spectrum, race, export, quickstart, inspect, recipes  # noqa: F401
# isort: on

INTERNAL_ERROR = 1


def main() -> None:
    """Run the command line. An error that a user can cause prints one sentence and sets its exit code, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that are not UTF-8
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        sys.exit(_report(error))


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU (OutOfMemoryError) or the machine has no memory left; torch's error for the latter is a RuntimeError."""
    return (
        type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    )


def _report(error: BaseException) -> int:
    """Print the error to stderr and return its exit code."""
    if isinstance(error, errors.SmtoolError):
        print(f"smtool: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print("smtool: stopped.", file=sys.stderr)
        return errors.Interrupted.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        print(f"smtool: {error.filename}: cannot be used ({error.strerror}).", file=sys.stderr)
        return errors.DiskError.exit_code if error.errno == errno.ENOSPC else errors.DataError.exit_code
    if _is_out_of_memory(error):
        print(f"smtool: out of memory ({first_line(error)}).\n  Lower the number of images at once.", file=sys.stderr)
        return errors.OutOfMemory.exit_code
    print(f"smtool: internal error: {type(error).__name__}: {first_line(error)}\n  --debug shows the traceback.", file=sys.stderr)
    return INTERNAL_ERROR
