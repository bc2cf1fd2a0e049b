"""Features of a small convolutional network with fixed random weights: no download, identical on every machine.

Distances in these features (fd_random) order distortions of the same images; they are not perceptual and not comparable with FID.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from smtool.features.extractor import Extractor
from smtool.features.protocol import Protocol
from smtool.randomness import generator
from smtool.storage import tensor_digest

WIDTHS = (16, 16, 16, 16)


class RandomFeatures(nn.Module):
    """Spatial means of the ReLU outputs of four convolutions, each at half the resolution of the one before: (B, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            _fixed(nn.Conv2d(before, after, 3, padding=1), key)
            for key, (before, after) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        means = []
        for stage in self.stages:
            x = stage(x).relu()
            means.append(x.mean((2, 3)))
            x = nn.functional.avg_pool2d(x, 2, ceil_mode=True)
        return torch.cat(means, 1)


def load(weights_dir: Path | None, protocol: Protocol) -> Extractor:
    with torch.random.fork_rng(devices=[]):
        network = RandomFeatures()
    return Extractor(
        network,
        name="random",
        digest=tensor_digest(network.state_dict()),
        dim=sum(WIDTHS),
        size=None,
        resize=protocol.resize,
        mean=(127.5, 127.5, 127.5),
        std=(64.0, 64.0, 64.0),
    )


def fixed(conv: nn.Conv2d, purpose: str, key: int) -> nn.Conv2d:
    """Fill weights and biases from random integers, so that they are bitwise identical on every machine.

    Weights have He's variance, biases a standard deviation of 0.5, without which features would not depend on the contrast.
    """
    assert conv.bias is not None
    draw = generator(purpose, key)
    with torch.no_grad():
        for values, scale in ((conv.weight, (2.0 / conv.weight[0].numel()) ** 0.5), (conv.bias, 0.5)):
            drawn = torch.randint(-127, 128, values.shape, generator=draw, device="cpu").double()
            values.copy_(drawn * scale / drawn.square().mean().sqrt())
    return conv


def _fixed(conv: nn.Conv2d, key: int) -> nn.Conv2d:
    """Fill the weights from random integers, so that they are bitwise identical on every machine; He's variance, no bias."""
    assert conv.bias is not None
    drawn = torch.randint(-127, 128, conv.weight.shape, generator=generator("fd_random", key))
    scale = (2.0 / conv.weight[0].numel()) ** 0.5 / drawn.double().square().mean().sqrt()
    with torch.no_grad():
        conv.weight.copy_(drawn * scale)
        conv.bias.zero_()
    return conv
