"""Activation checkpointing: blocks that store their input only, and compute their activations again in the backward pass."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """Base of the blocks of a network. recompute: whether this block's activations are computed again in the backward pass.

    Random numbers drawn inside are the same in both passes. Without gradients, nothing is stored in either case.
    """

    recompute = False

    def __call__(self, *inputs: Any) -> Any:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(super().__call__, *inputs, use_reentrant=False)
        return super().__call__(*inputs)


def recompute_activations(network: nn.Module) -> int:
    """Make all blocks of a network recompute their activations, and return their number."""
    blocks = [module for module in network.modules() if isinstance(module, Recomputable)]
    for block in blocks:
        block.recompute = True
    return len(blocks)
