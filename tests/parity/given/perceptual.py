"""LPIPS without a download: the lpips package's network and heads on a VGG16 trunk with generated weights."""

import warnings
from functools import cache

import lpips

from given.numbers import fill


@cache
def random_lpips() -> lpips.LPIPS:
    """The trunk's kernels have the gain of He initialization, so that features stay of order 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    fill(dict(network.net.named_parameters()), "vgg", gain=2**0.5)
    return network.double()
