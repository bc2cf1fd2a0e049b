"""Encoding with a frozen encoder, in float32, with a check for values that are not finite."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smtool.devices import ReadLater, to_device
from smtool.errors import DataError
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import Tokenizer


@dataclass(frozen=True)
class Encoded:
    """Posteriors of images on the autoencoder's device, before `checked` has read whether they are finite."""

    posterior: Posterior
    ids: Sequence[str]
    finite: ReadLater

    def checked(self) -> Posterior:
        """The posteriors. Raises DataError, naming the first image, if moments are not finite (the encoder overflows)."""
        finite = self.finite.value
        if not finite.all():
            bad = [name for name, fine in zip(self.ids, finite.tolist(), strict=True) if not fine]
            raise DataError(
                f"The autoencoder's encoding of image {bad[0]} is not finite ({len(bad)} of {len(self.ids)} in its batch).",
                hint="Its weights are damaged, or this image makes them overflow: check the image, or use another checkpoint.",
            )
        return self.posterior


@torch.no_grad()
def begin_encoding(autoencoder: Tokenizer, images: Tensor, ids: Sequence[str]) -> Encoded:
    """Encode images (B, C, H, W) in [-1, 1] in float32. On a GPU, returns before the work is done."""
    home = autoencoder.device
    with torch.autocast(home.type, enabled=False):
        posterior = autoencoder.encode(to_device(images, home))
    finite = (posterior.mean.isfinite() & (posterior.logvar < torch.inf)).flatten(1).all(1)  # (B,); zero variance is logvar -inf
    return Encoded(posterior, ids, ReadLater(finite))


def encoded(autoencoder: Tokenizer, images: Tensor, ids: Sequence[str], *, device: str | torch.device = "cpu") -> Posterior:
    """The posteriors of images (B, C, H, W) in [-1, 1], float32: computed on the autoencoder's device, returned on `device`.

    Raises DataError, naming the first image, if moments are not finite (the encoder overflows).
    """
    posterior = begin_encoding(autoencoder, images, ids).checked()
    return Posterior(posterior.mean.to(device), posterior.logvar.to(device))
