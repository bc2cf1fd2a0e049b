"""Errors a user can cause. Each says where, what was found and, as the hint, what would work."""


class SmtoolError(Exception):
    """Base of all errors that are shown as one sentence, without a traceback. exit_code: what the command then ends with."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class RecipeError(SmtoolError):
    """A recipe, an override or a command-line value that cannot be used."""

    exit_code = 2


class DataError(SmtoolError):
    """Images, shards or latents that are missing, damaged or of the wrong shape."""

    exit_code = 3


class CheckpointError(SmtoolError):
    """A checkpoint that is missing, damaged or of the wrong kind."""

    exit_code = 3


class WeightsError(SmtoolError):
    """Weights of a feature network that are not on this machine."""

    exit_code = 4


class TrainingError(SmtoolError):
    """Training that diverged: a loss or a gradient is not finite."""

    exit_code = 6


class DiskError(SmtoolError):
    """No room left, or no right, to write a file."""

    exit_code = 7


class Interrupted(SmtoolError):
    """Stopped by Ctrl-C or SIGTERM after saving what there was."""

    exit_code = 130
