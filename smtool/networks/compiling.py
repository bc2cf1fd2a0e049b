"""torch.compile for the repeated blocks of a network."""

from collections.abc import Iterable

from torch import nn

from smtool.networks.recompute import Recomputable


def compile_each(regions: Iterable[nn.Module]) -> None:
    """Compile modules in place, each by itself.

    Not the whole network: blocks of one kind and shape share one compiled graph, so that the start does not grow with the depth,
    and gradients arrive block by block in the backward pass, while those of others are sent to other ranks.
    """
    for region in regions:
        region.compile()


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a transformer of smtool or timm; none of other networks."""
    own = [module for module in network.modules() if isinstance(module, Recomputable)]
    return own or list(getattr(network, "blocks", ()))
