"""Names of the frozen networks in a checkpoint's training losses; scores from these networks are biased in its favor."""

from collections.abc import Mapping
from typing import Any

from smtool.features.weights import LPIPS_TRUNKS


def learned_from(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The names stated in the metadata; for checkpoints of old versions, LPIPS's trunk and the teacher from the recipe."""
    if "learned_from" in metadata:
        return tuple(metadata["learned_from"])
    recipe = metadata.get("recipe")
    if not isinstance(recipe, Mapping):
        return ()
    perceptual, alignment = recipe.get("perceptual") or {}, recipe.get("alignment") or {}
    trunk = LPIPS_TRUNKS[perceptual.get("net", "vgg")] if perceptual else None
    return tuple(name for name in (trunk, alignment.get("teacher")) if name)
