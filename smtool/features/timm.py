"""Any timm network, and DINOv2: pooled features before the classifier, with timm's input size, mean and std."""

import difflib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from smtool.errors import RecipeError, WeightsError
from smtool.features.extractor import Extractor
from smtool.features.hub_answers import hub_answers
from smtool.features.protocol import Protocol
from smtool.features.weights import are_left_out, find_weights, folders
from smtool.storage import file_digest, tensor_digest

_DINOV2 = "vit_large_patch14_dinov2.lvd142m"


def load(model: str, weights_dir: Path | None, protocol: Protocol) -> Extractor:
    """`timm:MODEL`: weights from MODEL.safetensors, .pth or .bin in a weights folder, else from timm's cache or download."""
    known_model(model)
    file = stored(model, weights_dir)
    network = create(model, file)
    digest = tensor_digest(network.state_dict()) if file is None else file_digest(file)
    size = resolve_model_data_config(network)["input_size"][-1]
    return _extractor(network, size, f"timm_{model}", digest, protocol)


def load_dinov2(weights_dir: Path | None, protocol: Protocol) -> Extractor:
    """The class token of ViT-L/14 at 224 px, for the FD-DINOv2 of Stein et al. 2023. timm resamples the position embedding, so
    values differ from theirs in the last digits."""
    path = find_weights("dinov2", weights_dir, purpose="fd_dinov2")
    return _extractor(create(_DINOV2, path, img_size=224), 224, "dinov2", file_digest(path), protocol)


def _extractor(network: nn.Module, size: int, name: str, digest: str, protocol: Protocol) -> Extractor:
    config = resolve_model_data_config(network.eval())
    with torch.no_grad():
        dim = network(torch.zeros(1, 3, size, size)).flatten(1).shape[1]
    mean, std = ([255.0 * value for value in config[key]] for key in ("mean", "std"))
    return Extractor(network, name=name, digest=digest, dim=dim, size=size, resize=protocol.resize, mean=mean, std=std)


def known_model(model: str) -> None:
    """Raise RecipeError, with suggestions, if timm has no model of this name."""
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else "`timm.list_models()` lists them."
        raise RecipeError(f"timm has no model called {model!r}.", hint=hint)


def stored(model: str, weights_dir: Path | None, other_names: Sequence[str] = ()) -> Path | None:
    """The file of a model in a weights folder, under timm's name or one of `other_names`; None if there is none."""
    if are_left_out():
        return None
    names = [*(f"{model}{ending}" for ending in (".safetensors", ".pth", ".bin")), *other_names]
    return next((folder / name for folder in folders(weights_dir) for name in names if (folder / name).is_file()), None)


def create(model: str, file: Path | None, **options: Any) -> nn.Module:
    """A pretrained model without its classifier, from a file, or from timm's cache or download (file None)."""
    if are_left_out():
        return timm.create_model(model, num_classes=0, **options)
    if file is not None:      # an overlay, because with checkpoint_path timm does not convert upstream files
        options["pretrained_cfg_overlay"] = {"file": str(file)}
    with torch.random.fork_rng(devices=[]):
        if file is None:
            _announce(model)
        try:
            with nullcontext() if file is not None or hub_answers() else _offline():
                return timm.create_model(model, pretrained=True, num_classes=0, **options)
        except Exception as error:      # timm, the hub and the network raise different exceptions
            where = f"from {file}" if file is not None else "from timm's cache or the network"
            raise WeightsError(
                f"the weights of timm's {model} could not be loaded {where}: {str(error).strip().splitlines()[0]}",
                hint=f"Put them into a folder given by --weights-dir or SMTOOL_WEIGHTS as {model}.safetensors or {model}.pth.",
            ) from error


def _announce(model: str) -> None:
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in timm.create_model(model, num_classes=0).parameters())
    print(f"Loading timm's {model}: {4e-6 * parameters:.0f} MB, downloaded unless it is in the hub's cache.", file=sys.stderr)


@contextmanager
def _offline() -> Iterator[None]:
    """Within this block, the hub's client uses only its cache."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before
