"""torch.compile for the repeated blocks of a network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smtool.errors import RecipeError
from smtool.networks.recompute import Recomputable


def compile_each(regions: Sequence[nn.Module]) -> None:
    """Compile modules of one device in place, each by itself. Raises RecipeError if this machine cannot compile for it.

    Not the whole network: blocks of one kind and shape share one compiled graph, so that the start does not grow with the depth,
    and gradients arrive block by block in the backward pass, while those of others are sent to other ranks.
    """
    device = next((parameter.device for region in regions for parameter in region.parameters()), torch.device("cpu"))
    try:
        torch.compile(_probe)(torch.zeros(8, device=device))
    except Exception as error:      # whatever the compiler, Triton or a C++ compiler raises
        raise RecipeError(
            f"compile: PyTorch {torch.__version__} cannot compile for {device} on this machine: {_first_line(error)}",
            hint="Leave out compile = true or --compile; results are the same to rounding.",
        ) from error
    for region in regions:
        region.compile()


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a transformer of smtool or timm; none of other networks."""
    own: list[nn.Module] = [module for module in network.modules() if isinstance(module, Recomputable)]
    return own or list(getattr(network, "blocks", ()))


def _probe(x: Tensor) -> Tensor:
    return torch.sin(x) + 1


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.endswith("raised:")), type(error).__name__)
