"""ResNet-56 for 32 px images (He et al. 2015, section 4.2) with the CIFAR-10 weights of akamaster: 64 features."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smtool.features.extractor import Extractor
from smtool.features.protocol import Protocol
from smtool.features.weights import IMAGENET_MEAN, IMAGENET_STD, WEIGHTS, fill, find_weights, load_state
from smtool.storage import file_digest


class Block(nn.Module):
    """Two 3x3 convolutions with a parameter-free shortcut: subsampled by the stride, new channels zero (option A)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.extra = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return F.relu(y + shortcut)


class CifarResNet(nn.Module):
    """Normalized images (B, 3, 32, 32) -> pooled features (B, 64). `linear` is only for loading the published weights."""

    def __init__(self, blocks_per_stage: int = 9) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks_per_stage)
        self.layer2 = _stage(16, 32, 2, blocks_per_stage)
        self.layer3 = _stage(32, 64, 2, blocks_per_stage)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


def load(weights_dir: Path | None, protocol: Protocol) -> Extractor:
    path = find_weights("resnet56", weights_dir, purpose="the features of fd_resnet56")
    title = WEIGHTS["resnet56"].title
    state = {name.removeprefix("module."): value for name, value in load_state(path, title).items()}
    with torch.random.fork_rng(devices=[]):
        network = CifarResNet()
    return Extractor(
        fill(network, state, path, title),
        name="resnet56",
        digest=file_digest(path),
        dim=64,
        size=32,
        resize=protocol.resize,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def _stage(before: int, after: int, stride: int, count: int) -> nn.Sequential:
    return nn.Sequential(Block(before, after, stride), *(Block(after, after, 1) for _ in range(count - 1)))
