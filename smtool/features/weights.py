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
from torch import Tensor, nn

from smtool.errors import WeightsError
from smtool.storage import file_digest

IMAGENET_MEAN = (123.675, 116.28, 103.53)      # of [0, 255]
IMAGENET_STD = (58.395, 57.12, 57.375)
LPIPS_TRUNKS = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet"}
"""LPIPS's names of networks -> ours."""


@dataclass(frozen=True)
class Weights:
    """A published weight file.

    files: names it is known under, the first as `url` delivers it; published: their sha256; instead: what does without it.
    """

    title: str
    files: tuple[str, ...]
    megabytes: int
    url: str
    published: tuple[str, ...] = ()
    instead: str = ""


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
    # The network behind every FID: TensorFlow's inception-2015-12-05, as pytorch-fid's state dict (torch-fidelity ships the same
    # bytes under another name) and as the TorchScript file that StyleGAN2-ADA and clean-fid use.
    "inception": Weights(
        "Inception v3 of 2015-12-05 (FID)",
        (
            "pt_inception-2015-12-05-6726825d.pth",
            "weights-inception-2015-12-05-6726825d.pth",
            "inception-2015-12-05.pt",
        ),
        91,
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        published=(
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        ),
        instead="--features random needs no weights; its distance is called fd_random, not FID.",
    ),
    "dinov2": Weights(
        "DINOv2 ViT-L/14 (Meta)",
        ("dinov2_vitl14_pretrain.pth",),
        1161,
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    ),
    "resnet56": Weights(
        "ResNet-56 (akamaster/pytorch_resnet_cifar10, CIFAR-10)",
        ("resnet56-4bfd9763.th", "cifar10_resnet/resnet56-4bfd9763.th"),
        4,
        "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet56-4bfd9763.th",
    ),
}


def find_weights(name: str, weights_dir: Path | None = None, *, purpose: str) -> Path:
    """Path of the weight file `name` (a key of WEIGHTS); `purpose` tells the user why it is needed.

    A file whose name carries a piece of its sha256 (torch's convention) is checked against it.
    """
    weights = WEIGHTS[name]
    for folder in folders(weights_dir):
        for file in weights.files:
            if (path := folder / file).is_file():
                return _intact(path, weights)
    return _download(weights, purpose)


def load_state(path: Path, title: str) -> dict[str, Tensor]:
    """A state dict from a weight file; nothing but tensors is unpickled."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:      # torch raises many kinds for a damaged file
        raise WeightsError(f"{path} is not a readable file of weights ({title}): {error}") from error
    return stored.get("state_dict", stored)


def fill(network: nn.Module, state: dict[str, Tensor], path: Path, title: str) -> nn.Module:
    """Put weights of any float type into a float32 network; all must fit."""
    try:
        network.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    except RuntimeError as error:
        raise WeightsError(f"{path} does not hold {title}: {str(error).splitlines()[-1].strip()}") from error
    return network


def folders(weights_dir: Path | None) -> list[Path]:
    """Where weight files are looked for, in this order; a folder that was named but does not exist is an error."""
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
            f" or into a folder given by --weights-dir or SMTOOL_WEIGHTS, as {' or '.join(weights.files)}."
            + (f"\n  {weights.instead}" if weights.instead else ""),
        ) from error
    return _intact(path, weights)
