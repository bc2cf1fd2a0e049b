"""TAESD as its author publishes it: encoder and decoder in two files, whose names are the numbers of layers in a row."""

import re
from collections.abc import Iterable
from typing import Literal

from torch import Tensor

from smtool.checkpoints.tensor_file import TensorFile
from smtool.errors import CheckpointError

Half = Literal["encoder", "decoder"]
_MARKS: dict[Half, tuple[str, str]] = {
    "encoder": ("0.weight", "1.conv.0.weight"),
    "decoder": ("1.weight", "3.conv.0.weight"),
}
"""First convolution and first block; in the decoder a clamp and a ReLU, which have no weights, go before each of them."""


def half_of(names: Iterable[str]) -> Half | None:
    """Which half these are the weights of; None for another file."""
    known = set(names)
    return next((half for half, marks in _MARKS.items() if known.issuperset(marks)), None)


def without_half(stem: str) -> str:
    """taesd of taesd_encoder."""
    return re.sub(r"(?<![a-z])(encoder|decoder)", "", stem).strip("_-. ") or stem


def joined(file: TensorFile) -> dict[str, Tensor]:
    """The weights of this half and of the other beside it, under the names of diffusers' AutoencoderTiny."""
    half = half_of(file.shapes)
    assert half is not None, "asked before"
    other: Half = "decoder" if half == "encoder" else "encoder"
    beside = file.path.with_name(file.path.name.replace(half, other))
    if half not in file.path.name or not beside.is_file():
        found = "is not here" if half in file.path.name else "is not known by name"
        raise CheckpointError(
            f"{file.path} is the {half} of TAESD alone; its {other} {found}.",
            hint=f"Put both into one folder, under names that differ in encoder and decoder, such as taesd_{other}.pth.",
        )
    mate = TensorFile(beside)
    if half_of(mate.shapes) != other:
        raise CheckpointError(f"{file.path} is the {half} of TAESD, but {beside.name} beside it is not such {_article(other)}.")
    encoder, decoder = (file, mate) if half == "encoder" else (mate, file)
    first = encoder.read({name: f"encoder.layers.{name}" for name in encoder.shapes})
    return first | decoder.read({name: f"decoder.layers.{_before(name)}" for name in decoder.shapes})


def _article(half: Half) -> str:
    return "an encoder" if half == "encoder" else "a decoder"


def _before(name: str) -> str:
    """The layer's number without the clamp, which diffusers does not count as a layer."""
    number, rest = name.split(".", 1)
    return f"{int(number) - 1}.{rest}"
