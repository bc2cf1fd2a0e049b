"""A TorchScript file as extractor: its input is float32 images (B, 3, H, W) in [0, 255], not resized; it returns (B, D)."""

import warnings
from pathlib import Path

import torch

from smtool.errors import WeightsError
from smtool.features.extractor import Extractor
from smtool.features.protocol import Protocol
from smtool.storage import file_digest

_PROBE = 64


def load(path: Path, protocol: Protocol) -> Extractor:
    if not path.is_file():
        raise WeightsError(f"{path}: no such TorchScript file.", hint="torch.jit.script(module).save(path) writes one.")
    try:
        with warnings.catch_warnings():      # torch deprecates TorchScript, but published files still use it
            warnings.simplefilter("ignore", FutureWarning)
            network = torch.jit.load(str(path), map_location="cpu").eval()
        with torch.no_grad():
            probe = network(torch.zeros(1, 3, _PROBE, _PROBE)).flatten(1)
    except RuntimeError as error:
        raise WeightsError(
            f"{path} is not a TorchScript extractor that works on float images (B, 3, {_PROBE}, {_PROBE}): {_last_line(error)}",
            hint="It must take float32 in [0, 255] at any size and return one vector per image.",
        ) from error
    return Extractor(
        network, name=path.stem, digest=file_digest(path), dim=probe.shape[1], size=None, resize=protocol.resize
    )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
