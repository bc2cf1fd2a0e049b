"""The Inception v3 of FID, from pytorch-fid's state dict or from StyleGAN's TorchScript file: 2048 pooled features.

With the state dict, the same forward pass also gives the inputs of sFID and of the inception score.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from smtool.errors import WeightsError
from smtool.features.extractor import Extractor, View
from smtool.features.protocol import Protocol
from smtool.features.weights import WEIGHTS, fill, find_weights, load_state
from smtool.storage import file_digest

_FIRST = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c"),
)
_LAST = ("Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c")
_SPATIAL_CHANNELS = 7


class Inception(nn.Module):
    """Normalized images (B, 3, 299, 299) -> pooled features (B, 2048); `look` returns all views.

    spatial: (B, 17 * 17 * 7), the first 7 channels of TensorFlow's mixed_6/conv, which is Mixed_6d's 1x1 branch (sFID as in ADM's
    evaluator; released-code.md#evaluation). logits: (B, 1008), without the bias, as in ADM's evaluator and torch-fidelity.
    """

    views: tuple[View, ...] = ("pooled", "spatial", "logits")

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.first = nn.Sequential(*(nn.MaxPool2d(3, 2) if name == "maxpool" else getattr(whole, name) for name in _FIRST))
        self.last = nn.Sequential(*(getattr(whole, name) for name in _LAST), nn.AdaptiveAvgPool2d(1))
        self.branch = whole.get_submodule("Mixed_6d.branch1x1")
        self.classifier = whole.get_submodule("fc")

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))

    def look(self, x: Tensor) -> dict[View, Tensor]:
        middle = self.first(x)
        pooled = self.last(middle).flatten(1)
        spatial = self.branch(middle)[:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        return {"pooled": pooled, "spatial": spatial, "logits": pooled @ self.classifier.weight.T}


def load(weights_dir: Path | None, protocol: Protocol) -> Extractor:
    path = find_weights("inception", weights_dir, purpose="FID")
    digest = file_digest(path)
    return Extractor(
        _scripted(path) if path.suffix == ".pt" else _from_state_dict(path),
        name="inception",
        digest=digest,
        dim=2048,
        size=299,
        resize=protocol.resize,
        mean=(protocol.offset,) * 3,
        std=(protocol.offset,) * 3,
        is_published_inception=digest in WEIGHTS["inception"].published,
    )


class _Layers(nn.Module):
    """The layers inside clean-fid's wrapper. The wrapper itself would normalize images that are already normalized."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _scripted(path: Path) -> nn.Module:
    from cleanfid.inception_torchscript import InceptionV3W

    try:
        with warnings.catch_warnings():      # torch deprecates TorchScript
            warnings.simplefilter("ignore", FutureWarning)
            wrapper = InceptionV3W(str(path.parent), download=False)
        return _Layers(wrapper.layers)
    except (RuntimeError, AttributeError) as error:
        raise WeightsError(f"{path} is not the TorchScript Inception of StyleGAN2-ADA: {error}") from error


def _from_state_dict(path: Path) -> nn.Module:
    title = WEIGHTS["inception"].title
    return Inception(fill(fid_inception(), load_state(path, title), path, title))


def fid_inception() -> nn.Module:
    """torchvision's Inception v3 with the blocks in which TensorFlow's network of 2015 differs, with random weights."""
    from cleanfid import inception_pytorch as ported

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        network = ported._inception_v3(num_classes=1008, aux_logits=False, pretrained=False)
        for name, width in (("Mixed_5b", (192, 32)), ("Mixed_5c", (256, 64)), ("Mixed_5d", (288, 64))):
            setattr(network, name, ported.FIDInceptionA(width[0], pool_features=width[1]))
        for name, channels in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            setattr(network, name, ported.FIDInceptionC(768, channels_7x7=channels))
        network.Mixed_7b = ported.FIDInceptionE_1(1280)
        network.Mixed_7c = ported.FIDInceptionE_2(2048)
    return network
