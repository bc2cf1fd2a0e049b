"""The `smtool` command: parse, load the recipe, call one pipeline, turn errors into exit codes. Imports nothing heavy."""

import sys
import traceback

from smtool import errors
from smtool.cli.app import app
from smtool.cli.options import first_line

# The order of --help.
# isort: off
from smtool.cli import prepare, train, sample, evaluate, spectrum, race, export, around  # noqa: F401
# isort: on

EXIT_CODES: dict[type[BaseException], int] = {
    errors.RecipeError: 2,
    errors.DataError: 3,
    errors.CheckpointError: 3,
    errors.WeightsError: 4,
    errors.TrainingError: 6,
    errors.DiskError: 7,
    errors.Interrupted: 130,
    KeyboardInterrupt: 130,
}
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
    code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), INTERNAL_ERROR)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        print(
            f"smtool: out of memory ({first_line(error)}).\n"
            "  Lower data.batch, or raise accumulate, which keeps the batch but computes it in parts; --dry-run shows the need.",
            file=sys.stderr,
        )
        return OUT_OF_MEMORY
    if isinstance(error, KeyboardInterrupt):
        print("smtool: stopped.", file=sys.stderr)
    elif code == INTERNAL_ERROR and not isinstance(error, errors.SmtoolError):
        print(f"smtool: internal error: {type(error).__name__}: {first_line(error)}\n  --debug shows where.", file=sys.stderr)
    else:
        print(f"smtool: {error}", file=sys.stderr)
    return code
