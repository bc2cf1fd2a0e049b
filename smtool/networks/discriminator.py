"""The PatchGAN discriminator (released-code.md#discriminator)."""

from itertools import pairwise

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smtool.config import LARGEST_WIDTH, Config


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


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the global batch over all ranks.

    With one process it equals BatchNorm2d. nn.SyncBatchNorm does the same, but does not support CPU tensors. As with any
    collective operation, all ranks must run the same number of forward and backward passes.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and dist.is_initialized() and dist.get_world_size() > 1:
            return self._synchronized(input)
        return super().forward(input)

    def _synchronized(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            values = x.to(torch.promote_types(x.dtype, torch.float32))
            own_count = values.new_tensor([values.numel() // values.shape[1]])
            totals = _SumOverRanks.apply(torch.cat([values.sum((0, 2, 3)), own_count]))  # (C + 1,)
            mean, count = totals[:-1] / totals[-1], totals[-1]
            centred = values - mean.view(1, -1, 1, 1)
            variance = _SumOverRanks.apply(centred.square().sum((0, 2, 3))) / count
            self._track(mean.detach(), variance.detach() * count / (count - 1))
            scale = self.weight * torch.rsqrt(variance + self.eps)
            return torch.addcmul(self.bias.view(1, -1, 1, 1), centred, scale.view(1, -1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_variance, self.momentum)


class _SumOverRanks(torch.autograd.Function):
    """Sum over all ranks. Its gradient is the sum of all ranks' gradients: the total loss is the sum over ranks."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
