"""The PatchGAN discriminator (released-code.md#discriminator)."""

from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from smtool.config import LARGEST_WIDTH, Config
from smtool.networks.batch_norm import GlobalBatchNorm2d


class PatchGAN(Config):
    """A convolutional discriminator with one logit per image patch."""

    num_layers: int = Field(
        3, ge=1, le=16, description="number of stride-2 convolutions; image sides must be at least 3 * 2 ** num_layers pixels"
    )
    channels: int = Field(
        64, ge=1, le=LARGEST_WIDTH, description="channels after the first convolution; doubled in each layer, up to 8 times"
    )
    init_std: float = Field(
        0.02, gt=0, description="standard deviation of the initial convolution weights; 0.2 in the paper's released code"
    )

    @property
    def title(self) -> str:
        return "PatchGAN"

    @property
    def smallest_input(self) -> int:
        """Smallest valid image side: each stride-2 layer halves it (rounding down), each of the last two layers subtracts 1."""
        return 3 * 2**self.num_layers

    def build(self) -> "PatchDiscriminator":
        return PatchDiscriminator(self)


class PatchDiscriminator(nn.Module):
    """Images (B, 3, H, W) -> logits (B, 1, h, w); 30 x 30 for 256 x 256 and three layers."""

    def __init__(self, config: PatchGAN) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * min(2**layer, 8) for layer in range(config.num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for layer, (before, after) in enumerate(pairwise(widths), start=1):
            stride = 2 if layer < config.num_layers else 1
            layers += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False),
                GlobalBatchNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1))
        self.layers = nn.Sequential(*layers)
        self._initialize(config.init_std)

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < self.config.smallest_input:
            raise ValueError(
                f"images of {images.shape[-2]}x{images.shape[-1]} are too small for a PatchGAN of "
                f"{self.config.num_layers} layers, which needs {self.config.smallest_input} pixels a side; "
                "use fewer `num_layers`"
            )
        return self.layers(images)

    def _initialize(self, init_std: float) -> None:
        """Draw convolution weights from N(0, init_std) and BatchNorm weights from N(1, 0.02), as in pix2pix."""
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, init_std)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
