"""BatchNorm with statistics of the global batch over all ranks."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
            own_count = values.new_full((1,), values.numel() // values.shape[1])
            totals = _SumOverRanks.apply(torch.cat([values.sum((0, 2, 3)), own_count]))  # (C + 1,)
            mean, count = totals[:-1] / totals[-1], totals[-1]
            centred = values - mean.view(1, -1, 1, 1)
            variance = _SumOverRanks.apply(centred.square().sum((0, 2, 3))) / count
            self._track(mean.detach(), variance.detach() * count / (count - 1))
            scale = torch.rsqrt(variance + self.eps)
            if not self.affine:
                return (centred * scale.view(1, -1, 1, 1)).to(x.dtype)
            scale = self.weight * scale
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
