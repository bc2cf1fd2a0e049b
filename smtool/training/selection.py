"""Training a part of a module: which parameters receive gradients, which statistics stay, and what this saves."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

FLOATS_OF_A_TRAINED_PARAMETER = 3
"""Its gradient and the two moments of AdamW. A moving average is one more."""


def train_only(module: nn.Module, names: Collection[str]) -> None:
    """Require gradients of the named parameters only. Layers without trained parameters keep their running statistics."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in names)
    hold_statistics(module)


def hold_statistics(module: nn.Module) -> None:
    """Eval mode for every normalization with running statistics (BatchNorm) whose parameters are all frozen.

    One without parameters follows the module that contains it.
    """
    for inside, trains in _with_statistics(module, any(parameter.requires_grad for parameter in module.parameters())):
        if not trains:
            inside.eval()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode within the block; afterwards each module inside has its former mode."""
    modes = {inside: inside.training for inside in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for inside, training in modes.items():
            inside.training = training


def saved_bytes(module: nn.Module, *, averaged: bool) -> int:
    """Bytes of gradients, moments and averages that the frozen parameters of a module do not need."""
    frozen = sum(parameter.nbytes for parameter in module.parameters() if not parameter.requires_grad)
    return frozen * (FLOATS_OF_A_TRAINED_PARAMETER + averaged)


def _with_statistics(module: nn.Module, trains: bool) -> Iterator[tuple[nn.Module, bool]]:
    """(module with running statistics, whether it trains)."""
    own = list(module.parameters())
    if own:
        trains = any(parameter.requires_grad for parameter in own)
    if isinstance(module, _NormBase) and module.track_running_stats:
        yield module, trains
    for child in module.children():
        yield from _with_statistics(child, trains)
