"""Encoding with a frozen encoder, in float32 or autocast to bf16, with a check for values that are not finite."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from smtool.devices import ReadLater, to_device
from smtool.errors import DataError, RecipeError
from smtool.networks.posterior import Posterior
from smtool.networks.tokenizer import Tokenizer

EncodingPrecision = Literal["fp32", "bf16"]


def encoding_in(tokenizer: Tokenizer, precision: EncodingPrecision) -> Tokenizer:
    """The tokenizer, which from now on encodes in this precision. Raises RecipeError for bf16 and one without weights."""
    if precision == "bf16" and next(tokenizer.parameters(), None) is None:
        raise RecipeError(
            f"{tokenizer.label} has no weights, so that encoding in bf16 would only round its latents.", hint="Encode in fp32."
        )
    tokenizer.encodes_in = precision
    return tokenizer


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
    """Encode images (B, C, H, W) in [-1, 1] to float32 moments. On a GPU, returns before the work is done.

    The network computes in float32 or, where `Tokenizer.encodes_in` says so, in autocast to bf16.
    """
    home = autoencoder.device
    with torch.autocast(home.type, dtype=torch.bfloat16, enabled=autoencoder.encodes_in == "bf16"):
        posterior = autoencoder.encode(to_device(images, home))
    posterior = Posterior(*(one.to(torch.promote_types(one.dtype, torch.float32)) for one in (posterior.mean, posterior.logvar)))
    finite = (posterior.mean.isfinite() & (posterior.logvar < torch.inf)).flatten(1).all(1)  # (B,); zero variance is logvar -inf
    return Encoded(posterior, ids, ReadLater(finite))


def encoded(autoencoder: Tokenizer, images: Tensor, ids: Sequence[str], *, device: str | torch.device = "cpu") -> Posterior:
    """The posteriors of images (B, C, H, W) in [-1, 1], float32: computed on the autoencoder's device, returned on `device`.

    Raises DataError, naming the first image, if moments are not finite (the encoder overflows).
    """
    posterior = begin_encoding(autoencoder, images, ids).checked()
    return Posterior(posterior.mean.to(device), posterior.logvar.to(device))
