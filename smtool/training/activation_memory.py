"""Predicts the memory of activations by running a network without values, on the meta device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import nn

from smtool.devices import meta_as_cpu
from smtool.networks.recompute import recompute_activations
from smtool.networks.shapes_only import shapes_only
from smtool.training.precision import Precision

_NOT_ACTIVATIONS = {"PARAM", "BUFFER", "GRAD", "OPT"}


def peak_bytes(step: Callable[[], object], *, fused: bool = False) -> int:
    """Peak bytes of the tensors that `step` makes on the meta device, without parameters, buffers and gradients.

    fused: with the kernels of `networks/norm_silu.py` for a GPU. The tracker is PyTorch's. Allocators need more, because they
    round and keep blocks, and so do libraries' workspaces.
    """
    from torch.distributed._tools.mem_tracker import MemTracker  # takes a second; imported only where it is asked for

    tracker = MemTracker()
    with tracker, _fused_attention(), nullcontext() if fused else meta_as_cpu():
        step()
    peak = tracker.get_tracker_snapshot("peak")
    kinds = [(kind, size) for sizes in peak.values() for kind, size in sizes.items()]
    return sum(size for kind, size in kinds if getattr(kind, "name", "Total") not in {*_NOT_ACTIVATIONS, "Total"})


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Replace attention by a product that stores as much as a fused kernel does: not the square of the number of tokens.

    On the meta device PyTorch would choose the kernel that stores it. The function itself is replaced, because a mode for torch
    functions is not active when blocks are recomputed in the backward pass.
    """
    def product(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return query * (key * value)

    usual = F.scaled_dot_product_attention
    setattr(F, "scaled_dot_product_attention", product)      # noqa: B010
    try:
        yield
    finally:
        setattr(F, "scaled_dot_product_attention", usual)      # noqa: B010


def training_bytes(
    build: Callable[[], nn.Module], loss: Callable[[nn.Module], torch.Tensor], *, recomputed: bool, precision: Precision = "fp32"
) -> int:
    """Predicted peak bytes of activations in one forward and backward pass.

    build: makes the network; loss: network on the meta device -> scalar; recomputed: as with memory = "checkpoint". With bf16 or
    fp16, as on a GPU: half of the bytes in float32, with its kernels.
    """
    with shapes_only():
        network = build()
    network.requires_grad_(True)      # PyTorch's tracker accepts no frozen parameters
    if recomputed:
        recompute_activations(network)
    found = peak_bytes(lambda: loss(network).backward(), fused=precision != "fp32")
    return found if precision == "fp32" else found // 2


def gib(size: float) -> str:
    """A size with a unit, such as 2.1 GiB or 130 MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
