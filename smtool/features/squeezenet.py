"""SqueezeNet 1.1's last feature map, averaged over positions: 512 features from 5 MB of weights."""

from pathlib import Path

import torch
from torch import nn
from torchvision.models import squeezenet1_1

from smtool.features.extractor import Extractor
from smtool.features.protocol import Protocol
from smtool.features.weights import IMAGENET_MEAN, IMAGENET_STD, WEIGHTS, fill, find_weights, load_state
from smtool.storage import file_digest


def load(weights_dir: Path | None, protocol: Protocol) -> Extractor:
    path = find_weights("squeezenet", weights_dir, purpose="the features of fd_squeezenet")
    title = WEIGHTS["squeezenet"].title
    with torch.random.fork_rng(devices=[]):
        whole = squeezenet1_1(weights=None)
    fill(whole, load_state(path, title), path, title)
    return Extractor(
        nn.Sequential(whole.features, nn.AdaptiveAvgPool2d(1)),
        name="squeezenet",
        digest=file_digest(path),
        dim=512,
        size=224,
        resize=protocol.resize,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
