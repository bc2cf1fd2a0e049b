"""Families of files: their names of a KL autoencoder's weights, and the conversion to smtool's names (those of diffusers)."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from smtool.networks.layers import DownsamplePad


@dataclass(frozen=True)
class Family:
    """title: name of the format; mark: a tensor name that only this family has; renames: (pattern, replacement), in order.

    downsample_pad: padding of its published models, which shapes do not determine. reordered: applied after the renames.
    """

    title: str
    mark: str
    renames: tuple[tuple[str, str], ...]
    downsample_pad: DownsamplePad
    reordered: Callable[[Mapping[str, str]], dict[str, str]] = dict

    def our_names(self, names: Iterable[str]) -> dict[str, str]:
        """Name in a file of this family -> smtool's name. Names begin with "encoder.", "decoder." etc., without a prefix."""
        return self.reordered({name: self._renamed(name) for name in names})

    def _renamed(self, name: str) -> str:
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


def numbers(names: Iterable[str], pattern: str) -> list[int]:
    """The distinct numbers matched by the group of `pattern` in the names, sorted."""
    return sorted({int(found[1]) for name in names if (found := re.fullmatch(pattern, name))})
