"""Frechet distances of generated images: value, interval, bias at finite N, and the limit for N to infinity."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from smtool.devices import to_device
from smtool.evaluation.comparison import Seen
from smtool.evaluation.scores import FRECHET, SampleScore, half_width
from smtool.features.extractor import Extractor, View
from smtool.metrics.bootstrap import bias_of_size, bootstrap_error
from smtool.metrics.extrapolation import GROUPS, extrapolated
from smtool.metrics.frechet import Gaussian, finite_features
from smtool.randomness import generator

SMALL_REPLICATES = 50
LARGE_REPLICATES = 20      # above LARGE_DIM, where each takes seconds
LARGE_DIM = 512
FULL_ENOUGH = 2      # images per dimension needed in each half for a bias proportional to 1 / N
HALVINGS = 2


def frechet_scores(seen: Seen, view: View) -> list[SampleScore]:
    """Frechet distance with a bootstrap over the samples, for a fixed reference; also its limit, if `infinity` is set."""
    samples, given = finite_features(seen.samples(view)), seen.comparison.reference.moments.get((seen.extractor.score, view))
    fixed = Gaussian.of(seen.images(view)) if given is None else Gaussian.of_stats(given)
    count, dim = samples.shape

    def distance(chosen: Tensor) -> float:
        return Gaussian.of_finite(samples[to_device(chosen, samples.device)]).distance(fixed)

    draws = generator(seen.comparison.seed, "bootstrap", seen.extractor.score, view)
    replicates = replicates_for(dim)
    error = bootstrap_error(distance, torch.arange(count), replicates=replicates, draws=draws)
    notes = []
    enough = count >= 2 * FULL_ENOUGH * dim
    if unreliable := too_few(min(count, math.inf if given is not None else seen.comparison.reference.count), dim):
        notes.append(unreliable)
    elif enough:
        bias = bias_of_size(distance, count, halvings=HALVINGS, draws=draws)
        notes.append(f"about {bias:.2g} of it is bias due to N = {count:,} samples (from halves, assuming a bias like 1/N)")
    if given is not None:
        notes.append("compared with the moments in the reference file, not with its images")
    if seen.comparison.infinity and not enough:
        needed = f"{2 * FULL_ENOUGH * dim:,} samples ({2 * FULL_ENOUGH} x {dim:,} features)"
        notes.append(f"not extrapolated to N = infinity, which needs {needed}")
    (name, title), width = _names(seen.extractor, view), half_width(error, replicates - 1)
    value, is_given = distance(torch.arange(count)), given is not None
    scores = [seen.score(name, title, "lower", value, width, FRECHET, notes=notes, given=is_given)]
    if seen.comparison.infinity and enough:
        scores.append(_limit(seen, name, title, distance, count, is_given))
    return scores


def replicates_for(dim: int) -> int:
    """Number of bootstrap replicates for a Frechet distance of `dim` features."""
    return LARGE_REPLICATES if dim > LARGE_DIM else SMALL_REPLICATES


def too_few(count: float, dim: int) -> str | None:
    """The note for a Frechet distance of too few images for a covariance of full rank; None if there are enough."""
    if count > dim:
        return None
    return f"{UNRELIABLE}, {count:,} images for {dim:,} features: no covariance of full rank, and a large bias"


UNRELIABLE = "unreliable"
"""First word of the note of `too_few`."""


def _limit(seen: Seen, name: str, title: str, distance: Callable[[Tensor], float], count: int, given: bool) -> SampleScore:
    """The Frechet distance for infinitely many samples, assuming a bias proportional to 1 / N."""
    draws = generator(seen.comparison.seed, "extrapolation", name)
    found = extrapolated(distance, count, halvings=HALVINGS, draws=draws)
    notes = [f"linear in 1/N, from N = {found.fewest:,} and {found.most:,} samples; the reference's N is not extrapolated"]
    width, metric = half_width(found.error, GROUPS - 1), f"{FRECHET}, N to infinity"
    return seen.score(f"{name}_infinity", f"{title}, N → ∞", "lower", found.value, width, metric, notes=notes, given=given)


def _names(extractor: Extractor, view: View) -> tuple[str, str]:
    """Name and title of a Frechet distance. Only the published Inception weights give an FID."""
    name = extractor.score
    if extractor.is_published_inception:
        return ("fid", "FID") if view == "pooled" else ("sfid", "sFID")
    title = name.replace("fd_", "FD ", 1)
    return (name, title) if view == "pooled" else (name.replace("fd_", "sfd_", 1), f"{title}, spatial")
