"""Files of TAESD as published by its author: encoder and decoder in two files, with layer numbers as names."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from smtool.checkpoints.assemble import assemble
from smtool.checkpoints.tensor_file import PICKLED, TensorFile
from smtool.errors import CheckpointError
from smtool.networks.taesd import TAESD, TinyAutoencoder

Half = Literal["encoder", "decoder"]
Shape = tuple[int, ...]
_MARKS: dict[Half, tuple[tuple[str, str], ...]] = {
    "encoder": (("0.weight", "1.conv.0.weight"), ("2.weight", "4.conv.0.weight")),
    "decoder": (("1.weight", "3.conv.0.weight"),),
}
"""Names of the first convolution and the first block, for f8 and f32 encoders and for all decoders."""


def half_of(names: Iterable[str]) -> Half | None:
    """The half of TAESD, "encoder" or "decoder", that has these names; None for other files."""
    known = set(names)
    return next((half for half, marks in _MARKS.items() if any(known.issuperset(mark) for mark in marks)), None)


def without_half(stem: str) -> str:
    """The file name without "encoder" or "decoder": taesd for taesd_encoder."""
    return re.sub(r"(?<![a-z])(encoder|decoder)", "", stem).strip("_-. ") or stem


def encoder_in(folder: Path) -> Path | None:
    """The encoder's file if the folder contains exactly one pair of encoder and decoder files, else None."""
    endings = (".safetensors", *PICKLED)
    found = [path for path in sorted(folder.glob("*encoder*")) if path.suffix in endings and _beside(path, "encoder").is_file()]
    return found[0] if len(found) == 1 else None


def read_taesd(path: Path, device: str = "cpu") -> TinyAutoencoder:
    """The autoencoder of a pair of files. path: either of them; the other is found by its name. Raises CheckpointError."""
    found = halves(TensorFile(path))
    config = _section(found["encoder"], found["decoder"])
    tensors = {
        f"{side}.{name}": value for side, part in found.items() for name, value in part.read(_same(part.shapes), device).items()
    }
    return assemble(path, config, tensors)


def halves(file: TensorFile) -> dict[Half, TensorFile]:
    """Both files of an autoencoder, from either of them. Raises CheckpointError if the other is missing."""
    half = half_of(file.shapes)
    assert half is not None, "checked by the caller"
    mate = _mate(file, half)
    return {"encoder": file, "decoder": mate} if half == "encoder" else {"encoder": mate, "decoder": file}


def _mate(file: TensorFile, half: Half) -> TensorFile:
    other: Half = "decoder" if half == "encoder" else "encoder"
    beside = _beside(file.path, half)
    if half not in file.path.name or not beside.is_file():
        found = "is missing" if half in file.path.name else "cannot be found by name"
        raise CheckpointError(
            f"{file.path} is only the {half} of TAESD; its {other} {found}.",
            hint=f"Put both into one folder, with names that differ only in encoder and decoder, such as taesd_{other}.pth.",
        )
    mate = TensorFile(beside)
    if half_of(mate.shapes) != other:
        article = "an encoder" if other == "encoder" else "a decoder"
        raise CheckpointError(f"{file.path} is the {half} of TAESD, but {beside.name} beside it is not such {article}.")
    return mate


def _beside(path: Path, half: Half) -> Path:
    """The path of the other half: the same name with encoder and decoder exchanged."""
    other = "decoder" if half == "encoder" else "encoder"
    return path.with_name(path.name.replace(half, other))


def _section(encoder: TensorFile, decoder: TensorFile) -> TAESD:
    """The config, if the layout is a published one; other variants fail later, when the weights do not fit."""
    if "2.bias" in encoder.shapes:      # a second strided convolution before the first block
        layout: Literal["plain", "pooled", "f32"] = "f32"
    else:
        layout = "pooled" if any(".pool." in name for name in encoder.shapes) else "plain"
    channels, first = decoder.shapes["1.weight"][1], decoder.shapes["1.weight"][0]
    images = encoder.shapes["0.weight"][1]
    return TAESD(layout=layout, latent_channels=channels, image_channels=images, width=first // 4 if layout == "f32" else first)


def _same(names: Mapping[str, Shape]) -> dict[str, str]:
    return {name: name for name in names}
