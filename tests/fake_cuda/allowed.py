"""What the host may wait for in each hot loop, with the reason. A test that finds another wait prints its place: remove the wait,
or add it here with the reason why it must be.

A wait is (what, "file:function" of smtool). Copies from pinned memory and numbers made on the device are no waits.
"""

from collections.abc import Mapping

ALLOWED: Mapping[str, Mapping[tuple[str, str], str]] = {
    "step of an autoencoder": {},
    "step of a transformer": {},
    "step without float64": {
        ("to host", "devices.py:in_float64"): "computed on the host, as is what follows",
        ("to host", "diffusion/ddpm.py:DDPMProcess.alpha_sigma"): "times, whose levels are float64",
        ("from pageable memory", "diffusion/time.py:logit_normal"): "times that the host computed",
        ("from pageable memory", "diffusion/ddpm.py:DDPMProcess.alpha_sigma"): "levels that the host computed",
        ("from pageable memory", "networks/lightning_dit.py:rotation_of"): "positions that the host computed",
        ("from pageable memory", "networks/posterior.py:LatentStats.normalize"): "latents that the host recoloured",
        ("from pageable memory", "spectrum/direction.py:_gain"): "gains that the host computed",
        ("from pageable memory", "spectrum/recolour.py:Recolouring._filtered"): "latents that the host recoloured",
    },
    "step of a sampler": {},
    "batch encoded for training": {
        ("event", "devices.py:ReadLater.value"): "says whether an image's encoding is finite; the batch was encoded before the "
        "last step was queued, so the GPU goes on with that step",
    },
    "batch encoded for a cache": {},
    "batch written to a cache": {
        ("event", "devices.py:ReadLater.value"): "mean and logvar, and whether they are finite; the thread that writes waits for "
        "them, while the next batches are encoded",
    },
    "draw of a bootstrap": {
        ("to host", "metrics/frechet.py:Gaussian.distance"): "a matrix whose singular values are computed on the host",
        ("event", "devices.py:ReadLater.value"): "a number that was sent before that matrix",
    },
    "batch of features": {
        ("to host", "evaluation/feature_pass.py:_pass"): "the features, which are scored and cached on the host",
    },
}

DOUBLES = {
    "devices.py:in_float64", "devices.py:to_device", "spectrum/dct.py:constant.cached", "spectrum/direction.py:_gain",
}
"""What may make float64 on a device in a step of training. `test_devices_without_float64` shows that all of it is on the CPU if
the device has no float64."""


FIRST = {
    ("from pageable memory", "networks/rae.py:ViTDecoder._table"), ("from pageable memory", "spectrum/dct.py:constant.cached"),
}
"""Waits of the first step only, which fills the caches of constants."""


def added(waits: Mapping[tuple[str, str], int], loop: str, *, first: bool = False) -> dict[tuple[str, str], int]:
    """The waits that are not allowed in a loop. first: the loop may have begun with them."""
    return {wait: count for wait, count in waits.items() if wait not in ALLOWED[loop] and not (first and wait in FIRST)}
