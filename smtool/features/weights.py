"""Where weights of feature networks live, and what to say when they are not there.

Looked for in this order: `--weights-dir`, the folder in SMTOOL_WEIGHTS, torch's hub cache; then downloaded into that cache,
with size and progress. Nothing is ever replaced by something else.
"""

import os
import re
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch

from smtool.errors import WeightsError
from smtool.storage import file_digest


@dataclass(frozen=True)
class Weights:
    """A published weight file: file names it is known under (the first is the downloaded one), size, address, sha256 if known."""

    title: str
    files: tuple[str, ...]
    megabytes: int
    url: str


_TORCHVISION = "https://download.pytorch.org/models"

WEIGHTS = {
    "vgg16": Weights("VGG16 (torchvision, ImageNet)", ("vgg16-397923af.pth",), 528, f"{_TORCHVISION}/vgg16-397923af.pth"),
    "alexnet": Weights(
        "AlexNet (torchvision, ImageNet)", ("alexnet-owt-7be5be79.pth",), 233, f"{_TORCHVISION}/alexnet-owt-7be5be79.pth"
    ),
    "squeezenet": Weights(
        "SqueezeNet 1.1 (torchvision, ImageNet)",
        ("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1_torchvision_fp16.pth"),
        5,
        f"{_TORCHVISION}/squeezenet1_1-b8a52dc0.pth",
    ),
}


def find_weights(name: str, weights_dir: Path | None = None, *, purpose: str) -> Path:
    """Path of the weight file `name` (a key of WEIGHTS); `purpose` tells the user why it is needed.

    A file whose name carries a piece of its sha256 (torch's convention) is checked against it.
    """
    weights = WEIGHTS[name]
    for folder in _folders(weights_dir):
        for file in weights.files:
            if (path := folder / file).is_file():
                return _intact(path, weights)
    return _download(weights, purpose)


def _folders(weights_dir: Path | None) -> list[Path]:
    named = os.environ.get("SMTOOL_WEIGHTS")
    chosen = [weights_dir] if weights_dir is not None else []
    chosen += [Path(named)] if named else []
    for folder in chosen:
        if not folder.is_dir():
            raise WeightsError(f"{folder}: no such folder of weights.", hint="Give an existing --weights-dir or SMTOOL_WEIGHTS.")
    return [*chosen, _cache()]


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _intact(path: Path, weights: Weights) -> Path:
    promised = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if promised and not (found := file_digest(path)).startswith(promised[1]):
        raise WeightsError(
            f"{path} is damaged or another file: its sha256 begins with {found[:8]}, its name promises {promised[1]}.",
            hint=f"Remove it and fetch it again from {weights.url}",
        )
    return path


def _download(weights: Weights, purpose: str) -> Path:
    path = _cache() / weights.files[0]
    try:
        with urllib.request.urlopen(urllib.request.Request(weights.url, method="HEAD"), timeout=15):
            pass
        print(f"Downloading {weights.title}, {weights.megabytes} MB, for {purpose}: {weights.url} -> {path}", file=sys.stderr)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(path), progress=sys.stderr.isatty())
    except OSError as error:
        raise WeightsError(
            f"{weights.title} is needed for {purpose}, is not on this machine, and could not be downloaded ({error}).",
            hint=f"Fetch {weights.url} ({weights.megabytes} MB) where there is a network and put it into {path.parent},"
            f" or into a folder given by --weights-dir or SMTOOL_WEIGHTS, as {' or '.join(weights.files)}.",
        ) from error
    return _intact(path, weights)
