"""Gradients of a player averaged over the ranks while its backward pass goes on, bucket by bucket."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import Parameter

from smtool.training.distributed import average_gradients, several_ranks
from smtool.training.sharding import is_sharded

BUCKET_BYTES = 25 * 2**20
"""As in PyTorch's DistributedDataParallel."""


class GradientAverage:
    """Averages the gradients of a player's parameters over all ranks.

    Parameters are divided into buckets in reverse order, in which backward passes mostly reach them. As soon as all gradients of
    a bucket are known, and the buckets before it are on their way, it is summed over the ranks in the background. Afterwards the
    gradients are parts of the buckets' memory. Gradients of sharded parameters are left to FSDP, which averages them itself.
    """

    def __init__(self, parameters: Iterable[Parameter], bucket_bytes: int = BUCKET_BYTES) -> None:
        self._parameters = [parameter for parameter in parameters if not is_sharded(parameter)] if several_ranks() else []
        self._buckets = list(_buckets(self._parameters[::-1], bucket_bytes))
        self._idle: set[Parameter] = set()      # without a gradient in the last turn: no bucket waits for them
        self._here: set[Parameter] = set()
        self._next = 0
        self._sent: list[_Sent] = []
        self._armed = False
        self._hooks = [
            parameter.requires_grad_().register_post_accumulate_grad_hook(self._arrived) for parameter in self._parameters
        ]

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def overlapped(self) -> Iterator[None]:
        """Context of the last backward pass of a turn; after it, every gradient is the mean over the ranks.

        Parameters without a gradient must be the same on all ranks.
        """
        self._here, self._next, self._sent = set(), 0, []
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
        for one in self._sent:
            one.work.wait()
            one.flat /= dist.get_world_size()
        done = {parameter for one in self._sent for parameter in one.parameters}
        average_gradients(parameter for parameter in self._parameters if parameter not in done)
        self._idle = {parameter for parameter in self._parameters if parameter.grad is None}
        self._sent = []

    def _arrived(self, parameter: Parameter) -> None:
        """Called by a backward pass when the gradient of a parameter is complete."""
        if not self._armed:
            return
        self._here.add(parameter)
        while self._next < len(self._buckets):      # in the same order on all ranks
            bucket = self._buckets[self._next]
            if any(one not in self._here and one not in self._idle for one in bucket):
                return
            if known := [one for one in bucket if one in self._here]:
                self._sent.append(_Sent(known))
            self._next += 1


class _Sent:
    """A bucket whose gradients have been copied into one buffer, which is being summed over the ranks."""

    def __init__(self, parameters: list[Parameter]) -> None:
        self.parameters = parameters
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self.flat = gradients[0].new_empty(sum(gradient.numel() for gradient in gradients))
        parts = list(_parts(self.flat, gradients))
        torch._foreach_copy_(parts, gradients)
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part
        self.work = dist.all_reduce(self.flat, async_op=True)


def _parts(flat: Tensor, gradients: list[Tensor]) -> Iterator[Tensor]:
    """Views of a buffer with the shapes and memory layouts of gradients."""
    at = 0
    for gradient in gradients:
        yield flat.as_strided(gradient.shape, torch.empty_like(gradient, device="meta").stride(), at)
        at += gradient.numel()


def _buckets(parameters: list[Parameter], size: int) -> Iterator[list[Parameter]]:
    """Consecutive parameters of one dtype and device that are together about as large as `size` bytes."""
    bucket: list[Parameter] = []
    filled = 0
    for parameter in parameters:
        kind = (parameter.dtype, parameter.device)
        if bucket and (filled >= size or kind != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket, filled = [], 0
        bucket.append(parameter)
        filled += parameter.numel() * parameter.element_size()
    if bucket:
        yield bucket
