"""Terms of a loss, and the gradient-norm ratios that scale some of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from smtool.training.distributed import averaged

Layer = Literal["encoder", "decoder"]
_SCALE = 256.0
"""A power of two, so that nothing but fp16 is changed by it."""


@dataclass(frozen=True)
class AdaptiveWeight:
    """How a term is scaled: by |grad of the numerator| / max(|grad of the term|, floor) at one last layer, at most `cap`.

    numerator: names of the terms whose weighted sum is differentiated above; empty: all reconstruction terms.
    Source: facts section 2.1 (decoder: GAN; floor 1e-8, at most 1e4), 5.3 (encoder: VA-VAE).
    """

    layer: Layer
    numerator: tuple[str, ...] = ()
    floor: float = 1e-8
    cap: float = 1e4


@dataclass(frozen=True)
class Term:
    """A named scalar that enters the loss as weight * value, or as weight * factor * value with an adaptive weight."""

    name: str
    value: Tensor
    weight: float = 1.0
    adaptive_weight: AdaptiveWeight | None = None
    reconstruction: bool = False


@dataclass(frozen=True)
class Loss:
    """total: the scalar to differentiate. values: each unweighted term and each adaptive factor, detached, for the log."""

    total: Tensor
    values: dict[str, Tensor]


def weighted_sum(terms: list[Term], layers: Mapping[Layer, Tensor] = {}) -> Loss:
    """Add the terms up; those with an adaptive weight are scaled by their gradient-norm ratio.

    layers: weights of the last layers that adaptive weights name. The ratio uses gradients averaged over all ranks, is
    detached, and is taken in float32.
    """
    values = {term.name: term.value.detach() for term in terms}
    weighted = []
    for term in terms:
        if term.adaptive_weight is not None:
            factor = _ratio(terms, term, term.adaptive_weight, layers[term.adaptive_weight.layer])
            values[f"{term.name}_factor"] = factor
            term = replace(term, value=term.value * factor)
        weighted.append(term.weight * term.value)
    return Loss(torch.stack([value.float() for value in weighted]).sum(), values)


def _ratio(terms: list[Term], term: Term, adaptive: AdaptiveWeight, layer: Tensor) -> Tensor:
    reference = torch.stack([other.weight * other.value for other in _numerator(terms, adaptive)]).sum()
    ratio = _norm(reference, layer) / _norm(term.value, layer).clamp(min=adaptive.floor)
    return ratio.clamp(max=adaptive.cap).detach()


def _numerator(terms: list[Term], adaptive: AdaptiveWeight) -> list[Term]:
    if not adaptive.numerator:
        return [term for term in terms if term.reconstruction]
    named = {term.name: term for term in terms}
    if absent := [name for name in adaptive.numerator if name not in named]:
        raise ValueError(f"an adaptive weight is held against {absent[0]!r}, but the loss has {', '.join(named)}")
    return [named[name] for name in adaptive.numerator]


def _norm(value: Tensor, layer: Tensor) -> Tensor:
    """Scaled on the way, since a pixel's share of a mean over a batch of images is less than fp16 can tell from 0."""
    (gradient,) = torch.autograd.grad(_SCALE * value, layer, retain_graph=True, allow_unused=True)
    return layer.new_zeros(()) if gradient is None else averaged(gradient.float() / _SCALE).norm()
