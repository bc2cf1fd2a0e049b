"""The diffusion process of a published transformer on images or DCT coefficients, and the check of its tokens."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtool.checkpoints.transformers import PublishedTransformer
from smtool.errors import CheckpointError, RecipeError
from smtool.networks.tokenizer import Tokenizer
from smtool.tokenizers.dct import DCT
from smtool.tokenizers.pixels import Pixels
from smtool.tokenizers.published_dct import PUBLISHED


@dataclass(frozen=True)
class _Row:
    """A published DCTdiff: sizes of U-ViT, side of the token grid, number of classes (arXiv 2412.15032, released code)."""

    sizes: tuple[str, ...]
    side: int
    num_classes: int = 0


_ROWS = {
    "cifar10": _Row(("M",), 8),
    "celeba64": _Row(("S",), 16),
    "imagenet64": _Row(("S", "M"), 16, 1000),
    "ffhq128": _Row(("S",), 16),
    "ffhq256": _Row(("M",), 32),
}


def process_of(
    path: Path, published: PublishedTransformer, tokenizer: Tokenizer, place: str, *, snr_scale: float | None
) -> dict[str, Any]:
    """The `[process]` table of a published transformer with these tokens.

    snr_scale: of vp-sde, None for the published one. U-ViT on pixels has vp-sde, as released; on latents the discrete process.
    The times of DiT-DH are shifted for the dimension of its latents (released-code.md#dit-dh).
    Raises CheckpointError if the tokens are not those of a published DCTdiff, or its SNR scale is unknown. Raises RecipeError for
    a scale that is not positive.
    """
    if snr_scale is not None and not 0 < snr_scale < math.inf:
        raise RecipeError(f"--snr-scale {snr_scale:g}: must be a positive number.")
    if published.family == "DCTdiff":
        scale = _dct_scale(path, published, tokenizer, place, snr_scale)
    elif published.process == "ddpm" and isinstance(tokenizer.config, Pixels):
        scale = 1.0 if snr_scale is None else snr_scale
    elif snr_scale is not None:
        raise CheckpointError(
            f"{path} is {published.description} on the latents of {place}, whose process has no SNR scale.",
            hint="Remove --snr-scale, which is for DCTdiff and for U-ViT on pixels.",
        )
    else:
        shift = {"shift": "dimension"} if published.family == "DiT-DH" else {}
        return {"kind": published.process, **shift}
    return {"kind": "vp-sde", "snr_scale": scale}


def _dct_scale(
    path: Path, published: PublishedTransformer, tokenizer: Tokenizer, place: str, snr_scale: float | None
) -> float:
    name = _row(published)
    config = tokenizer.config
    if not isinstance(config, DCT):
        raise CheckpointError(
            f"{path} is {published.description}, which are DCT coefficients, but {place} has other latents.",
            hint=f"Pass the tokens of its training: --autoencoder {_tokens(name)}",
        )
    if name is None:
        if snr_scale is None:
            raise CheckpointError(
                f"{path} is {published.description}: not one of the five published models, and its file has no SNR scale.",
                hint="Pass the factor of its training: --snr-scale NUMBER",
            )
        return snr_scale
    row = PUBLISHED[name]
    if (config.block, config.kept, config.chroma, config.eta) != (row.block, row.kept, "420", row.eta):
        raise CheckpointError(
            f"{path} is the published model of {name}, trained on the tokens of {_tokens(name)}, not on those of {place}.",
            hint=f"Pass --autoencoder {_tokens(name)}",
        )
    return float(row.snr_scale) if snr_scale is None else snr_scale


def _row(published: PublishedTransformer) -> str | None:
    """The published model with these shapes; None if there is none."""
    channels, side, _ = published.latent_shape
    for name, row in _ROWS.items():
        shape = (6 * PUBLISHED[name].kept, row.side, row.num_classes)
        if shape == (channels, side, published.num_classes) and published.config.size in row.sizes:
            return name
    return None


def _tokens(name: str | None) -> str:
    """The name of the tokenizer of a published model."""
    return "dct:BxM,eta=NUMBER" if name is None else f"dct:{PUBLISHED[name].block}x{PUBLISHED[name].kept},eta={name}"
