"""Encoding with a frozen encoder, in float32, with a check for values that are not finite."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smtool.errors import DataError
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import Tokenizer


@torch.no_grad()
def encoded(autoencoder: Tokenizer, images: Tensor, ids: Sequence[str], *, device: str | torch.device = "cpu") -> Posterior:
    """The posteriors of images (B, C, H, W) in [-1, 1], float32: computed on the autoencoder's device, returned on `device`.

    Raises DataError, naming the first image, if moments are not finite (the encoder overflows).
    """
    home = autoencoder.device
    with torch.autocast(home.type, enabled=False):
        posterior = autoencoder.encode(images.to(home))
    finite = (posterior.mean.isfinite() & (posterior.logvar < torch.inf)).flatten(1).all(1)  # (B,); zero variance is logvar -inf
    if not finite.all():
        bad = [name for name, fine in zip(ids, finite.tolist(), strict=True) if not fine]
        raise DataError(
            f"The autoencoder's encoding of image {bad[0]} is not finite ({len(bad)} of {len(ids)} in its batch).",
            hint="Its weights are damaged, or this image makes them overflow: check the image, or use another checkpoint.",
        )
    return Posterior(posterior.mean.to(device), posterior.logvar.to(device))
