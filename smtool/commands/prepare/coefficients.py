"""`prepare --latents dct:... --judge`: how few DCT coefficients of a block still give images like the originals."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smtool.data import ImageShards, open_images, validation_batches
from smtool.data.batches import to_uint8
from smtool.data.latents.card import LATENT_CARD_NAME, LatentCard, read_latent_card
from smtool.data.latents.dct_measures import FewestCoefficients, fewest_line
from smtool.errors import DataError, RecipeError
from smtool.features.load import load_extractor
from smtool.inference.features import pooled_features
from smtool.metrics.frechet import Gaussian
from smtool.report.plots.coefficients import coefficients_figure
from smtool.report.plots.output import figure_bytes
from smtool.storage import write_bytes, write_json
from smtool.tokenizers import open_tokenizer
from smtool.tokenizers.block_dct import from_tokens, to_tokens
from smtool.tokenizers.dct import DCT, is_dct

FIGURE_NAME = "coefficients.png"
JUDGED_IMAGES = 2048
_BATCH = 64


def check_judge(name: str, judge: str, weights_dir: Path | None) -> None:
    """Raise RecipeError unless `name` is a DCT tokenizer, and the judge's own errors, before anything is encoded."""
    if not is_dct(name):
        raise RecipeError(f"--judge judges the coefficients of dct:BxM, but {name} is another tokenizer.", hint="Leave it out.")
    load_extractor(judge, weights_dir=weights_dir)


def judge_cache(folder: Path, judge: str, *, max_fd: float | None = None, **place: Any) -> LatentCard:
    """Judge the coefficients of a finished cache of DCT coefficients, add the result to its card and draw it beside the card.

    place: device, weights_dir and report, as in `judge_coefficients`.
    """
    card = read_latent_card(folder)
    described = open_tokenizer(card.checkpoint).config
    assert isinstance(described, DCT) and card.dct is not None, "checked before it was encoded"
    images = open_images(card.images_folder, card.split, image_size=card.image_size)
    found = judge_coefficients(described, images, judge=judge, max_fd=max_fd, **place)
    figure = coefficients_figure(
        found.kept,
        found.distances,
        bound=found.bound,
        fewest=found.fewest,
        judge=found.judge,
        title=f"Distance of images from fewer of {described.block**2} DCT coefficients",
        note=textwrap.fill(fewest_line(described, found), 90),
    )
    card = card.model_copy(update={"dct": card.dct.model_copy(update={"fewest_coefficients": found})})
    write_bytes(folder / FIGURE_NAME, figure_bytes(figure, "png"))
    write_json(folder / LATENT_CARD_NAME, card.model_dump(mode="json"))
    return card


def judge_coefficients(
    description: DCT,
    images: ImageShards,
    *,
    judge: str,
    max_fd: float | None = None,
    device: str = "cpu",
    weights_dir: Path | None = None,
    report: Callable[[int, int], object] | None = None,
) -> FewestCoefficients:
    """Decode the first images (half of them, at most 2,048) from fewer and fewer coefficients; measure their Frechet distance.

    The distance is to the same images before encoding. max_fd: the largest distance allowed; None: that of as many other images
    of the same set. Decoded images are rounded to 256 levels. Raises DataError for fewer than 4 images.
    """
    count = min(JUDGED_IMAGES, len(images) // 2)
    if count < 2:
        raise DataError(f"{images.folder}: coefficients are judged on at least 4 images, found {len(images)}.")
    extractor = load_extractor(judge, weights_dir=weights_dir).to(device)
    first, others = (
        [batch.images for batch in validation_batches(images, batch=_BATCH, first=start, limit=start + count)]
        for start in (0, count)
    )

    def features(parts: list[Tensor]) -> Gaussian:
        return Gaussian.of(pooled_features(extractor, (to_uint8(part) for part in parts)))

    reference, tried = features(first), tried_numbers(description.block)
    bound = features(others).distance(reference) if max_fd is None else max_fd
    distances = []
    for number, kept in enumerate(tried):
        distances.append(features([_decoded(part, description, kept) for part in first]).distance(reference))
        if report:
            report(number + 1, len(tried))
    return FewestCoefficients(
        judge=extractor.score,
        images=count,
        kept=tried,
        distances=tuple(float(f"{distance:.9g}") for distance in distances),
        bound=float(f"{bound:.9g}"),
        bound_of="given" if max_fd is not None else f"that of {count:,} other images of the set",
        fewest=fewest_within(tried, distances, bound),
    )


def tried_numbers(block: int) -> tuple[int, ...]:
    """All numbers of coefficients for blocks of 2 and 4; for larger ones, those that complete an anti-diagonal."""
    if block <= 4:
        return tuple(range(1, block**2 + 1))
    lengths = [min(k, 2 * block - k) for k in range(1, 2 * block)]
    return tuple(sum(lengths[:k]) for k in range(1, 2 * block))


def fewest_within(kept: tuple[int, ...], distances: list[float], bound: float) -> int | None:
    """The smallest number such that it and all larger ones have a distance of at most the bound."""
    fewest = None
    for number, distance in reversed(list(zip(kept, distances, strict=True))):
        if not distance <= bound:
            break
        fewest = number
    return fewest


@torch.no_grad()
def _decoded(images: Tensor, description: DCT, kept: int) -> Tensor:
    settings = {**description.settings, "kept": kept}
    return from_tokens(to_tokens(images, **settings), **settings)
