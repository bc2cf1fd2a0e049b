"""From a section and tensors to an autoencoder, without initializing weights that are replaced at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor

from smtool.errors import CheckpointError
from smtool.networks.shapes_only import shapes_only
from smtool.networks.tokenizer import Tokenizer

Network = TypeVar("Network", bound=Tokenizer, covariant=True)


class Buildable(Protocol[Network]):
    """A recipe section of a network."""

    def build(self) -> Network: ...


def assemble(path: Path, config: Buildable[Network], tensors: Mapping[str, Tensor]) -> Network:
    """The network of a section that adopts these tensors as its weights, without initializing any; `path` is named in errors.

    Projections of attention may be 1x1 convolutions, as they once were.
    """
    tensors = {name: value.flatten(1) if value.ndim == 4 and ".attentions." in name else value for name, value in tensors.items()}
    with shapes_only():
        network = config.build()
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if problems := _differences(expected, found):
        raise CheckpointError(
            f"{path}: the weights do not fit the architecture it states.\n  " + "\n  ".join(problems),
            hint="The file was changed after it was written, or describes another network; take the original file.",
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
