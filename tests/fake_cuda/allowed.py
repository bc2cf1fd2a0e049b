"""What the host may wait for in each hot loop, with the reason. A test that finds another wait prints its place: remove the wait,
or add it here with the reason why it must be.

A wait is (what, "file:function" of smtool). Copies from pinned memory and numbers made on the device are no waits.
"""

from collections.abc import Mapping

ALLOWED: Mapping[str, Mapping[tuple[str, str], str]] = {
    "step of an autoencoder": {},
    "step of a transformer": {},
    "step of a sampler": {},
    "batch encoded for training": {
        ("event", "devices.py:ReadLater.value"): "says whether an image's encoding is finite; the batch was encoded before the "
        "last step was queued, so the GPU goes on with that step",
    },
    "batch encoded for a cache": {
        ("event", "devices.py:ReadLater.value"): "says whether an image's encoding is finite",
        ("to host", "tokenizers/encode.py:encoded"): "mean and logvar, which are written to disk",
    },
    "batch of features": {
        ("to host", "evaluation/feature_pass.py:_pass"): "the features, which are scored and cached on the host",
    },
}


def added(waits: Mapping[tuple[str, str], int], loop: str) -> dict[tuple[str, str], int]:
    """The waits that are not allowed in a loop."""
    return {wait: count for wait, count in waits.items() if wait not in ALLOWED[loop]}
