"""LPIPS: the distance between two images in the features of a classifier (Zhang et al. 2018), as loss and as score."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from smtool.config import LossConfig
from smtool.devices import is_autocast_on
from smtool.errors import WeightsError
from smtool.features.frozen import Frozen
from smtool.features.lpips_head import head
from smtool.features.pictures import as_rgb
from smtool.features.weights import LPIPS_TRUNKS, WEIGHTS, are_left_out, digest_of, find_weights, load_state

LPIPSNet = Literal["vgg", "alex", "squeeze"]

_SMALLEST = {"vgg": 16, "alex": 31, "squeeze": 17}  # the last layer would be empty below


class Perceptual(LossConfig):
    """Perceptual loss: compares reconstruction and image in the features of a frozen network instead of per pixel."""

    net: LPIPSNet = Field("vgg", description="trunk: VGG16 528 MB, AlexNet 233 MB, SqueezeNet 5 MB")
    weight: float = Field(0.5, gt=0, description="factor of the mean LPIPS; 0.5 in the paper, 1.0 in LDM")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="precision of the trunk in training: auto: bf16 on a GPU if the recipe's precision is not fp32, else fp32; "
        "the heads, and LPIPS as a score, are always fp32",
    )

    @property
    def smallest_input(self) -> int:
        """The smallest image side, in pixels, at which no layer is empty."""
        return _SMALLEST[self.net]

    def learned_from(self) -> tuple[str, ...]:
        return (LPIPS_TRUNKS[self.net],)

    def build(self, weights_dir: Path | None = None) -> "PerceptualDistance":
        return PerceptualDistance(self.net, weights_dir)


class PerceptualDistance(Frozen):
    """LPIPS v0.1 with the heads of the `lpips` package on torchvision's trunk.

    Called with x and y (B, C, H, W) in [-1, 1] of one to four channels (`as_rgb`), returns (B,). Gradients flow to both images.
    precision: "fp32" computes in float32, also under autocast. "bf16" computes the trunk in bfloat16 and channels_last while
    autocast is on, and the heads in float32; without autocast, as scores are computed, it is the same as "fp32".
    """

    precision: Literal["fp32", "bf16"] = "fp32"

    def __init__(self, net: LPIPSNet, weights_dir: Path | None = None) -> None:
        path = find_weights(LPIPS_TRUNKS[net], weights_dir, purpose=f"LPIPS with the {net} network")
        super().__init__(_lpips(net, path))
        self.name, self.trunk = f"lpips_{net}", LPIPS_TRUNKS[net]
        self.digest = digest_of(path)
        self.smallest_input = _SMALLEST[net]

    def __call__(self, *images: Any) -> Tensor:
        if self.precision == "fp32" or not is_autocast_on(self.device):
            return super().__call__(*images)
        x, y = images
        self._check(x, y)
        with torch.autocast(self.device.type, enabled=False):
            heads: Any = self.network.lins      # each a dropout and a 1x1 convolution
            layers = zip(self._features(x), self._features(y), heads, strict=True)
            return torch.stack([head(a, b, one.model[-1].weight.flatten()) for a, b, one in layers]).sum(0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self._check(x, y)
        return self.network(as_rgb(x.float()), as_rgb(y.float())).flatten()

    def _features(self, images: Tensor) -> Sequence[Tensor]:
        """Features of the layers that are compared, (B, C, h, w) in bfloat16 and channels_last."""
        trunk, scale = cast(nn.Module, self.network.net), cast(nn.Module, self.network.scaling_layer)
        weights = {name: _in_half(value) for name, value in trunk.state_dict().items()}
        found: Sequence[Tensor] = torch.func.functional_call(trunk, weights, _in_half(scale(as_rgb(images.float()))))
        return found

    def _check(self, x: Tensor, y: Tensor) -> None:
        if x.shape != y.shape or x.ndim != 4 or not 1 <= x.shape[1] <= 4:
            raise ValueError(
                f"LPIPS compares two batches (B, C, H, W) of 1 to 4 channels, found {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if min(x.shape[-2:]) < self.smallest_input:
            raise ValueError(f"{self.name} needs images of at least {self.smallest_input} px, found {tuple(x.shape[-2:])}")


def _in_half(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16, memory_format=torch.channels_last if x.ndim == 4 else torch.preserve_format)


def _lpips(net: str, trunk: Path) -> nn.Module:
    """The package's network, built without printing, downloads or draws from the global generator."""
    import lpips

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    if are_left_out():
        return network
    stored = load_state(trunk, WEIGHTS[LPIPS_TRUNKS[net]].title)
    try:
        # lpips splits torchvision's `features` into slices but keeps the layer numbers: slice2.4.weight is features.4.weight
        values = {name: stored["features." + name.split(".", 1)[1]].float() for name in network.net.state_dict()}
        network.net.load_state_dict(values)
    except (KeyError, RuntimeError) as error:
        name = LPIPS_TRUNKS[net]
        raise WeightsError(f"{trunk} does not hold torchvision's {name} ({error}).", hint="Replace the file.") from error
    return network
