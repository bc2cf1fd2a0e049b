"""Which frozen networks a checkpoint's losses learned from, so that none of them is taken for an impartial judge."""

from collections.abc import Mapping
from typing import Any

from smtool.features.weights import LPIPS_TRUNKS


def learned_from(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Names as the checkpoint states them; of one of an older version, what its recipe says of LPIPS and of a teacher."""
    if "learned_from" in metadata:
        return tuple(metadata["learned_from"])
    recipe = metadata.get("recipe")
    if not isinstance(recipe, Mapping):
        return ()
    perceptual, alignment = recipe.get("perceptual") or {}, recipe.get("alignment") or {}
    trunk = LPIPS_TRUNKS[perceptual.get("net", "vgg")] if perceptual else None
    return tuple(name for name in (trunk, alignment.get("teacher")) if name)
