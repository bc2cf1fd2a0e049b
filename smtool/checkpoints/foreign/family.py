"""What a family of files calls the weights of a KL autoencoder, and how its names become ours, which are diffusers' of today."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from smtool.networks.layers import DownsamplePad


@dataclass(frozen=True)
class Family:
    """title: whose format it is; mark: a name that only this family has; renames: (pattern, replacement), applied in order.

    downsample_pad: that of all its published models; no shape shows it. reordered: what is left to do after the renames.
    """

    title: str
    mark: str
    renames: tuple[tuple[str, str], ...]
    downsample_pad: DownsamplePad
    reordered: Callable[[Mapping[str, str]], dict[str, str]] = dict

    def our_names(self, names: Iterable[str]) -> dict[str, str]:
        """Name in a file of this family -> our name. Names begin with "encoder.", "decoder." and so on."""
        return self.reordered({name: self._renamed(name) for name in names})

    def _renamed(self, name: str) -> str:
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


def numbers(names: Iterable[str], pattern: str) -> list[int]:
    """What the group of `pattern` stands for in the names that match it, each once, in order."""
    return sorted({int(found[1]) for name in names if (found := re.fullmatch(pattern, name))})
