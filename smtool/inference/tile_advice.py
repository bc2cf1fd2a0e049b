"""Advice to encode and decode in tiles when memory does not suffice for whole images."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from smtool.devices import is_out_of_memory, reason_of
from smtool.errors import OutOfMemory
from smtool.image_shape import ImageSize
from smtool.networks.shapes_only import shapes_only
from smtool.networks.tokenizer import Tokenizer
from smtool.tokenizers.tiled import Tiled, receptive_field
from smtool.training.activation_memory import gib, peak_bytes

TILE = 512


@contextmanager
def advising_tiles(tokenizer: Tokenizer, size: ImageSize, *, batch: str | None) -> Iterator[None]:
    """Turn an out-of-memory error in the block into one that names --tile, with predicted bytes where they can be computed.

    size: of the images; batch: the option that lowers the number of images at once, None if there is none.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory ({reason_of(error)}).", hint=_advice(tokenizer, size, batch)) from error


def _advice(tokenizer: Tokenizer, size: ImageSize, batch: str | None) -> str:
    fewer = "" if batch is None else f"Lower {batch}"
    if isinstance(tokenizer, Tiled) or tokenizer.image_size is not None or max(size) <= TILE or receptive_field(tokenizer) > TILE:
        return f"{fewer or 'Use smaller images'}."
    whole, tile = (decoding_bytes(tokenizer, one) for one in (size, ImageSize(TILE, TILE)))
    needs = f", which needs about {gib(tile)} an image instead of {gib(whole)}" if whole and tile else ""
    return f"{fewer}{', or encode' if fewer else 'Encode'} and decode tiles: --tile {TILE}{needs}."


def decoding_bytes(tokenizer: Tokenizer, size: ImageSize) -> int | None:
    """Predicted peak bytes of the activations while one image of this size is decoded.

    None for a network of another library and for plain arithmetic.
    """
    if tokenizer.config is None or tokenizer.network is None or not tokenizer.can_decode:
        return None
    with shapes_only():
        network = tokenizer.config.build()  # type: ignore[attr-defined]
    latent = torch.empty(1, *tokenizer.latent_shape(*size), device="meta")
    with torch.no_grad():
        return peak_bytes(lambda: network.decode(latent))
