"""The `smtool` command: parse, load the recipe, call one pipeline, turn errors into exit codes. Imports nothing heavy."""

import sys
import traceback

from smtool import errors
from smtool.cli.app import app
from smtool.cli.options import first_line

# The order of --help.
# isort: off
from smtool.cli import prepare, train, sample, evaluate, spectrum, race, export, quickstart, inspect, recipes  # noqa: F401
# isort: on

INTERNAL_ERROR, OUT_OF_MEMORY = 1, 5


def main() -> None:
    """Run the command line; every error a user can cause ends in one sentence and its exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        sys.exit(_report(error))


def _report(error: BaseException) -> int:
    """Say what happened on stderr, and return the exit code."""
    if isinstance(error, errors.SmtoolError):
        print(f"smtool: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print("smtool: stopped.", file=sys.stderr)
        return errors.Interrupted.exit_code
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        print(
            f"smtool: out of memory ({first_line(error)}).\n"
            "  Lower data.batch, or raise accumulate, which keeps the batch but computes it in parts; --dry-run shows the need.",
            file=sys.stderr,
        )
        return OUT_OF_MEMORY
    print(f"smtool: internal error: {type(error).__name__}: {first_line(error)}\n  --debug shows where.", file=sys.stderr)
    return INTERNAL_ERROR
