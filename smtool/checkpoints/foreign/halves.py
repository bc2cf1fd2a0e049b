"""Files that hold only the encoder or only the decoder of an autoencoder."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from smtool.errors import CheckpointError

Half = Literal["encoder", "decoder"]
_UP, _DOWN = ("up.", "up_blocks."), ("down.", "down_blocks.")


def refuse_half(path: Path, names: Iterable[str]) -> None:
    """Raise CheckpointError, naming the half, if these names are those of one half of an autoencoder."""
    if (half := half_in(names)) is not None:
        other = "encoder" if half == "decoder" else "decoder"
        raise CheckpointError(
            f"{path} holds only the {half} of an autoencoder; its {other} is missing.",
            hint="Pass the file or folder of the whole autoencoder.",
        )


def half_in(names: Iterable[str]) -> Half | None:
    """The only half in a file: the one of "encoder" and "decoder" in the names, else by layers that only go down or up."""
    names = list(names)
    parts = {part for name in names for part in name.split(".")}
    found = parts & {"encoder", "decoder"}
    if len(found) == 1 and "quantize" not in parts and any(".conv" in name for name in names):
        return "encoder" if "encoder" in found else "decoder"
    down, up = (any(name.startswith(marks) for name in names) for marks in (_DOWN, _UP))
    if found or down == up or "conv_in.weight" not in names:
        return None
    return "encoder" if down else "decoder"
