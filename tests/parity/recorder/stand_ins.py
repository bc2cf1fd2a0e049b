"""Stand-ins for modules that released trainers import but no recorded step needs: loggers, data sets, downloads."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any


class Anything(ModuleType):
    """A module in which every name is a class that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})


def stand_in(*names: str) -> None:
    """Make `import name` return a stand-in module."""
    for name in names:
        sys.modules[name] = Anything(name)


class Batches:
    """Replaces a DataLoader: batch(step) for each step, from step 0 again in the next epoch."""

    def __init__(self, batch: Callable[[int], Any], steps: int) -> None:
        self.batch = batch
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return map(self.batch, range(self.steps))
