"""TAESD as its author publishes it: encoder and decoder in two files, whose names are the numbers of layers in a row."""

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
"""First convolutions and first block: of f8 and f32 encoders, of all decoders."""


def half_of(names: Iterable[str]) -> Half | None:
    """Which half these are the weights of; None for another file."""
    known = set(names)
    return next((half for half, marks in _MARKS.items() if any(known.issuperset(mark) for mark in marks)), None)


def without_half(stem: str) -> str:
    """taesd of taesd_encoder."""
    return re.sub(r"(?<![a-z])(encoder|decoder)", "", stem).strip("_-. ") or stem


def encoder_in(folder: Path) -> Path | None:
    """The file of the encoder, where a folder holds one pair of halves."""
    endings = (".safetensors", *PICKLED)
    found = [path for path in sorted(folder.glob("*encoder*")) if path.suffix in endings and _beside(path, "encoder").is_file()]
    return found[0] if len(found) == 1 else None


def read_taesd(path: Path, device: str = "cpu") -> TinyAutoencoder:
    """From one half, which finds the other beside it by its name. `path`: either."""
    file = TensorFile(path)
    half = half_of(file.shapes)
    assert half is not None, "asked before"
    mate = _mate(file, half)
    encoder, decoder = (file, mate) if half == "encoder" else (mate, file)
    config = _section(encoder, decoder)
    halves = (("encoder", encoder), ("decoder", decoder))
    tensors = {f"{side}.{name}": value for side, part in halves for name, value in part.read(_same(part.shapes), device).items()}
    return assemble(path, config, tensors)


def _mate(file: TensorFile, half: Half) -> TensorFile:
    other: Half = "decoder" if half == "encoder" else "encoder"
    beside = _beside(file.path, half)
    if half not in file.path.name or not beside.is_file():
        found = "is not here" if half in file.path.name else "is not known by name"
        raise CheckpointError(
            f"{file.path} is the {half} of TAESD alone; its {other} {found}.",
            hint=f"Put both into one folder, under names that differ in encoder and decoder, such as taesd_{other}.pth.",
        )
    mate = TensorFile(beside)
    if half_of(mate.shapes) != other:
        article = "an encoder" if other == "encoder" else "a decoder"
        raise CheckpointError(f"{file.path} is the {half} of TAESD, but {beside.name} beside it is not such {article}.")
    return mate


def _beside(path: Path, half: Half) -> Path:
    """The file whose name says the other half."""
    other = "decoder" if half == "encoder" else "encoder"
    return path.with_name(path.name.replace(half, other))


def _section(encoder: TensorFile, decoder: TensorFile) -> TAESD:
    """Of the published layouts; what a variant has otherwise is found when weights do not fit."""
    if "2.bias" in encoder.shapes:      # a second strided convolution before the first block
        layout: Literal["plain", "pooled", "f32"] = "f32"
    else:
        layout = "pooled" if any(".pool." in name for name in encoder.shapes) else "plain"
    channels, first = decoder.shapes["1.weight"][1], decoder.shapes["1.weight"][0]
    return TAESD(layout=layout, latent_channels=channels, width=first // 4 if layout == "f32" else first)


def _same(names: Mapping[str, Shape]) -> dict[str, str]:
    return {name: name for name in names}
