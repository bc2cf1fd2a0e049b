"""The band-transfer section: which image frequencies answer when one band of latent frequencies is stirred."""

from typing import Any

import torch
from torch import Tensor

from smtool.networks.tokenizer import Tokenizer
from smtool.pipelines.spectrum.decoding import batch_of_latents, exactly
from smtool.pipelines.spectrum.numbers import finite, numbers, or_reason
from smtool.randomness import generator
from smtool.spectrum import band_transfer
from smtool.spectrum.transfer import LARGEST_MOVE, BandTransfer

BANDS = 8
EPS = 0.1


@torch.no_grad()
def transfer(codec: Tokenizer, latents: Tensor, reconstructions: Tensor | None) -> dict[str, Any]:
    """Kappa, leaks and both matrices from raw latents (N, C, h, w) and their decodings; 16 images suffice.

    One decoding per band and one for the self-check, K + 1 an image; the unstirred one is `reconstructions`.
    """
    if reconstructions is None:
        return {"reason": "it has no decoder"}
    return or_reason(lambda: _section(codec, latents, reconstructions))


def _section(codec: Tokenizer, latents: Tensor, reconstructions: Tensor) -> dict[str, Any]:
    found = band_transfer(
        exactly(codec.decode),
        latents,
        BANDS,
        generator=generator("spectrum", "transfer"),
        eps=EPS,
        batch=batch_of_latents(codec, latents),
        unstirred=reconstructions,
    )
    return {
        "images": len(latents),
        "bands": len(found.answered),
        "eps": EPS,
        "kappa": finite(found.kappa),
        "share": finite(found.share),
        "above": finite(found.above),
        "down": finite(found.down),
        "relative_share": finite(found.relative_share),
        "relative_kappa": finite(found.relative_kappa),
        "absolute": [numbers(row) for row in found.absolute],
        "relative": [numbers(row) for row in found.relative],
        "answered": found.answered.tolist(),
        "row_gain": numbers(found.row_gain),
        "self_check": finite(found.self_check),
        "is_linear": found.is_linear,
        "remark": _remark(found),
    }


def _remark(found: BandTransfer) -> str | None:
    """What the self-check says where it fails."""
    if found.is_linear:
        return None
    return (
        f"the decoder is not linear at this scale: at a third of the perturbation the loudest row moves by "
        f"{found.self_check:.2f}, more than {LARGEST_MOVE}; the matrix holds for perturbations of {EPS:g} of each band's rms only"
    )
