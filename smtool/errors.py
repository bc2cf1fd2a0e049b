"""Errors a user can cause. The message says where and what was found; the hint says what would work."""


class SmtoolError(Exception):
    """Base of all errors that are shown without a traceback. exit_code: the exit status of the command."""

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


class OutOfMemory(SmtoolError):
    """Tensors that do not fit into the memory of the device or of the machine."""

    exit_code = 5


class TrainingError(SmtoolError):
    """Training that diverged: a loss or a gradient is not finite."""

    exit_code = 6


class DiskError(SmtoolError):
    """A file that cannot be written: the disk is full or permission is denied."""

    exit_code = 7


class RankLost(SmtoolError):
    """Another rank of a distributed command has ended or cannot be reached."""

    exit_code = 8


class Interrupted(SmtoolError):
    """Stopped by Ctrl-C or SIGTERM, after saving the state so far."""

    exit_code = 130
