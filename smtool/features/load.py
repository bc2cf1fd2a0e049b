"""Feature extractors by name."""

from importlib import import_module
from pathlib import Path
from typing import Any

from smtool.errors import RecipeError
from smtool.features.extractor import Extractor
from smtool.features.protocol import PROTOCOLS, Protocol

# File and loader of each extractor, imported only when needed, because importing timm takes a second.
_HOMES = {
    "inception": ("inception", "load"),
    "squeezenet": ("squeezenet", "load"),
    "resnet56": ("cifar_resnet", "load"),
    "dinov2": ("timm", "load_dinov2"),
    "random": ("random", "load"),
}


def load_extractor(name: str, *, weights_dir: Path | None = None, protocol: Protocol = PROTOCOLS["clean"]) -> Extractor:
    """The extractor `name`: inception, squeezenet, resnet56, dinov2, random, timm:MODEL, or the path of a TorchScript file.

    Raises WeightsError if its weights are neither on this machine nor downloadable, RecipeError for an unknown name.
    """
    if name in _HOMES:
        file, loader = _HOMES[name]
        return getattr(_imported(file), loader)(weights_dir, protocol)
    if name.startswith("timm:"):
        return _imported("timm").load(name.removeprefix("timm:"), weights_dir, protocol)
    if name.endswith((".pt", ".ts", ".torchscript", ".jit")):
        return _imported("scripted").load(Path(name), protocol)
    raise RecipeError(
        f"there is no feature extractor called {name!r}.",
        hint=f"Names are {', '.join(_HOMES)}, timm:MODEL (any timm name), or the path of a TorchScript file (.pt).",
    )


def _imported(file: str) -> Any:
    return import_module(f"smtool.features.{file}")
