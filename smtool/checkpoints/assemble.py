"""Build an autoencoder from its config and the tensors of a file, without initializing weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor

from smtool.errors import CheckpointError
from smtool.networks.shapes_only import shapes_only
from smtool.networks.tokenizer import Tokenizer

Network = TypeVar("Network", bound=Tokenizer, covariant=True)


class Buildable(Protocol[Network]):
    """The config of a network."""

    def build(self) -> Network: ...


def assemble(path: Path, config: Buildable[Network], tensors: Mapping[str, Tensor]) -> Network:
    """The network of `config` with these tensors as its weights. Raises CheckpointError, naming `path`, if they do not fit.

    Projections of attention may be stored as 1x1 convolutions, as in old files.
    """
    tensors = {name: value.flatten(1) if value.ndim == 4 and ".attentions." in name else value for name, value in tensors.items()}
    with shapes_only():
        network = config.build()
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if problems := _differences(expected, found):
        raise CheckpointError(
            f"{path}: the weights do not fit the architecture it states.\n  " + "\n  ".join(problems),
            hint="The file was changed after it was written, or describes another network; use the original file.",
        )
    network.load_state_dict(tensors, assign=True)
    return network


def _differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    strangers = {"missing": sorted(expected.keys() - found.keys()), "unexpected": sorted(found.keys() - expected.keys())}
    reshaped = [name for name in sorted(expected.keys() & found.keys()) if expected[name] != found[name]]
    lines = [f"{len(names)} {what}, first {names[0]}" for what, names in strangers.items() if names]
    if reshaped:
        name = reshaped[0]
        lines.append(f"{len(reshaped)} of another shape, first {name}: {found[name]} instead of {expected[name]}")
    return lines
