"""Finds or downloads the weight files of feature networks.

Searched in this order: `--weights-dir`, the folder in SMTOOL_WEIGHTS, torch's hub cache; then downloaded into that cache, with
size and progress. Missing weights are an error; no other network is used instead.
"""

import os
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from smtool.errors import WeightsError
from smtool.networks.shapes_only import shapes_only
from smtool.storage import file_digest, tensor_digest

IMAGENET_MEAN = (123.675, 116.28, 103.53)      # for intensities in [0, 255]
IMAGENET_STD = (58.395, 57.12, 57.375)
LPIPS_TRUNKS = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet"}
"""LPIPS's names of networks -> keys of WEIGHTS."""


@dataclass(frozen=True)
class Weights:
    """A published weight file.

    files: accepted file names, the first one as downloaded from `url`; published: sha256 digests of the published files; instead:
    hint on an alternative that needs no download.
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
    # The network of every FID: TensorFlow's inception-2015-12-05, as pytorch-fid's state dict (in torch-fidelity the same file
    # has another name) and as the TorchScript file of StyleGAN2-ADA and clean-fid.
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
        instead="--features random needs no downloaded weights; its distance is called fd_random, not FID.",
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


_without: ContextVar[bool] = ContextVar("without weights", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Build networks within the block by shape only, on the meta device. No weights are searched, read or downloaded."""
    token = _without.set(True)
    try:
        with shapes_only():
            yield
    finally:
        _without.reset(token)


@contextmanager
def random_weights() -> Iterator[None]:
    """Build frozen networks within the block with weights drawn from torch's global generator, to measure speed without files."""
    token = _without.set(True)
    try:
        yield
    finally:
        _without.reset(token)


def are_left_out() -> bool:
    """Whether the code runs within `without_weights` or `random_weights`."""
    return _without.get()


def digest_of(weights: Path | Mapping[str, Tensor]) -> str:
    """sha256 of a weight file or of tensors; "" where weights are left out."""
    if are_left_out():
        return ""
    return file_digest(weights) if isinstance(weights, Path) else tensor_digest(weights)


def find_weights(name: str, weights_dir: Path | None = None, *, purpose: str) -> Path:
    """Path of the weight file `name` (a key of WEIGHTS), downloaded if necessary. purpose: why it is needed, for messages.

    If the file name contains the first digits of its sha256 (torch's convention), the file is checked against them. Raises
    WeightsError for a damaged file, or if it is neither found nor downloadable.
    """
    weights = WEIGHTS[name]
    if are_left_out():
        return Path(weights.files[0])
    for folder in folders(weights_dir):
        for file in weights.files:
            if (path := folder / file).is_file():
                return _intact(path, weights)
    return _download(weights, purpose)


def load_state(path: Path, title: str) -> dict[str, Tensor]:
    """Read a state dict from a weight file, with weights_only=True. Raises WeightsError for an unreadable file."""
    if are_left_out():
        return {}
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:      # torch raises various exceptions for a damaged file
        raise WeightsError(f"{path} is not a readable weight file ({title}): {error}") from error
    if not isinstance(stored, dict):
        raise WeightsError(f"{path} holds {type(stored).__name__}, not the named weights of {title}.")
    state: dict[str, Tensor] = stored.get("state_dict", stored)
    return state


def fill(network: nn.Module, state: dict[str, Tensor], path: Path, title: str) -> nn.Module:
    """Load weights of any float type into a float32 network. Raises WeightsError if names or shapes differ."""
    if are_left_out():
        return network
    try:
        network.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    except RuntimeError as error:
        raise WeightsError(f"{path} does not hold {title}: {str(error).splitlines()[-1].strip()}") from error
    return network


def folders(weights_dir: Path | None) -> list[Path]:
    """The folders searched for weight files, in order. Raises WeightsError if a given folder does not exist."""
    named = os.environ.get("SMTOOL_WEIGHTS")
    chosen = [weights_dir] if weights_dir is not None else []
    chosen += [Path(named)] if named else []
    for folder in chosen:
        if not folder.is_dir():
            raise WeightsError(f"{folder}: no such folder.", hint="Set --weights-dir or SMTOOL_WEIGHTS to an existing folder.")
    return [*chosen, _cache()]


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _intact(path: Path, weights: Weights) -> Path:
    promised = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if promised and not (found := file_digest(path)).startswith(promised[1]):
        raise WeightsError(
            f"{path} is damaged or another file: its sha256 begins with {found[:8]}, but its name states {promised[1]}.",
            hint=f"Remove it and download it again from {weights.url}",
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
            hint=f"Download {weights.url} ({weights.megabytes} MB) on a machine with a network and put it into {path.parent},"
            f" or into the folder given by --weights-dir or SMTOOL_WEIGHTS, as {' or '.join(weights.files)}."
            + (f"\n  {weights.instead}" if weights.instead else ""),
        ) from error
    return _intact(path, weights)
