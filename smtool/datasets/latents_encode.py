"""Images through a frozen encoder: in float32, and never on with numbers that are not finite."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smtool.errors import DataError
from smtool.networks.autoencoder import Autoencoder
from smtool.networks.posterior import Posterior


@torch.no_grad()
def encoded(autoencoder: Autoencoder, images: Tensor, ids: Sequence[str], *, device: str | torch.device = "cpu") -> Posterior:
    """The posteriors of images (B, 3, H, W) in [-1, 1], float32, on `device`; computed where the autoencoder lies.

    Raises DataError that names the images whose moments are not finite: an encoder that overflows.
    """
    home = autoencoder.encoder_tail.device
    with torch.autocast(home.type, enabled=False):
        posterior = autoencoder.encode(images.to(home))
    finite = (posterior.mean.isfinite() & posterior.logvar.isfinite()).flatten(1).all(1)  # (B,)
    if not finite.all():
        bad = [name for name, fine in zip(ids, finite.tolist(), strict=True) if not fine]
        raise DataError(
            f"The autoencoder's encoding of image {bad[0]} is not finite ({len(bad)} of {len(ids)} in its batch).",
            hint="Its weights are damaged, or overflow on this picture: look at it, or use another checkpoint.",
        )
    return Posterior(posterior.mean.to(device), posterior.logvar.to(device))
