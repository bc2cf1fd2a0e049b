"""Errors a user can cause. Each says where, what was found and, as the hint, what would work. Exit codes are in cli."""


class SmtoolError(Exception):
    """Base of all errors that are shown as one sentence, without a traceback."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class RecipeError(SmtoolError):
    """A recipe, an override or a command-line value that cannot be used."""


class DataError(SmtoolError):
    """Images, shards or latents that are missing, damaged or of the wrong shape."""


class CheckpointError(SmtoolError):
    """A checkpoint that is missing, damaged or of the wrong kind."""


class WeightsError(SmtoolError):
    """Weights of a feature network that are not on this machine."""


class TrainingError(SmtoolError):
    """Training that diverged: a loss or a gradient is not finite."""


class DiskError(SmtoolError):
    """No room left, or no right, to write a file."""


class Interrupted(SmtoolError):
    """Stopped by Ctrl-C or SIGTERM after saving what there was."""
