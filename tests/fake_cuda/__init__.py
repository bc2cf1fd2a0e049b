"""Commands and methods on a GPU that is not there: devices of all tensors, and what the host waits for in loops."""

import torch

SHOWN = ("2.15",)
"""Versions of torch with which `card` was shown to work: it uses private parts of torch."""


def why_not() -> str | None:
    """Why there can be no fake GPU here; None if there can."""
    if torch.cuda.is_available():
        return "a real GPU is here, and caches of constants would keep fake tensors for it"
    if not torch.__version__.startswith(SHOWN):
        return f"shown to work with torch {', '.join(SHOWN)} only; this is {torch.__version__}"
    return None
