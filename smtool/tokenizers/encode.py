"""Images through a frozen encoder, in float32; moments that are not finite are an error."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smtool.errors import DataError
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import Tokenizer


@torch.no_grad()
def encoded(autoencoder: Tokenizer, images: Tensor, ids: Sequence[str], *, device: str | torch.device = "cpu") -> Posterior:
    """The posteriors of images (B, 3, H, W) in [-1, 1], float32, on `device`; computed where the autoencoder lies.

    Raises DataError that names the images whose moments are not finite: an encoder that overflows.
    """
    home = autoencoder.device
    with torch.autocast(home.type, enabled=False):
        posterior = autoencoder.encode(images.to(home))
    finite = (posterior.mean.isfinite() & (posterior.logvar < torch.inf)).flatten(1).all(1)  # (B,); points have logvar -inf
    if not finite.all():
        bad = [name for name, fine in zip(ids, finite.tolist(), strict=True) if not fine]
        raise DataError(
            f"The autoencoder's encoding of image {bad[0]} is not finite ({len(bad)} of {len(ids)} in its batch).",
            hint="Its weights are damaged, or overflow on this picture: look at it, or use another checkpoint.",
        )
    return Posterior(posterior.mean.to(device), posterior.logvar.to(device))
