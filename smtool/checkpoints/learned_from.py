"""Names of the frozen networks in a checkpoint's training losses; scores from these networks are biased in its favor."""

from collections.abc import Mapping
from typing import Any

from smtool.features.weights import LPIPS_TRUNKS


def learned_from(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The names stated in the metadata; for checkpoints of old versions, LPIPS's trunk and the teacher from the recipe."""
    if "learned_from" in metadata:
        names = metadata["learned_from"]
        return tuple(map(str, names)) if isinstance(names, list) else ()
    recipe = _table(metadata, "recipe")
    perceptual, alignment = _table(recipe, "perceptual"), _table(recipe, "alignment")
    trunk = LPIPS_TRUNKS.get(str(perceptual.get("net", "vgg"))) if perceptual else None
    return tuple(str(name) for name in (trunk, alignment.get("teacher")) if name)


def _table(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}
