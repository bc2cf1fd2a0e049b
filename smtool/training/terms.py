"""Terms of a loss, and their adaptive weights by ratios of gradient norms."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from smtool.training.distributed import averaged

Layer = Literal["encoder", "decoder"]
_SCALE = 256.0
"""Scale of values before `_norm` differentiates them, against underflow in fp16. A power of two, so that it adds no rounding."""


@dataclass(frozen=True)
class AdaptiveWeight:
    """The factor of a term: |grad of the numerator| / max(|grad of the term| + offset, floor), at most `cap`.

    Gradients are with respect to the weights of the last layer of `layer`. numerator: names of the terms whose weighted sum is
    differentiated; empty: all reconstruction terms. Source: released-code.md#autoencoder-loss (decoder: GAN; floor 1e-8, cap
    1e4) and released-code.md#va-vae (encoder; offset 1e-4, cap 1e8).
    """

    layer: Layer
    numerator: tuple[str, ...] = ()
    floor: float = 1e-8
    cap: float = 1e4
    offset: float = 0.0


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
    """A loss. total: the scalar to differentiate; values: unweighted terms and adaptive factors, detached, for the log."""

    total: Tensor
    values: dict[str, Tensor]


def weighted_sum(terms: list[Term], layers: Mapping[Layer, Tensor] = {}) -> Loss:
    """The weighted sum of the terms; terms with an adaptive weight are also scaled by their ratio of gradient norms.

    layers: weights of the last layers that adaptive weights use. The ratio is computed in float32 from gradients averaged over
    all ranks, and is detached. Raises ValueError if a numerator names an absent term.
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
    ratio = _norm(reference, layer) / (_norm(term.value, layer) + adaptive.offset).clamp(min=adaptive.floor)
    return ratio.clamp(max=adaptive.cap).detach()


def _numerator(terms: list[Term], adaptive: AdaptiveWeight) -> list[Term]:
    if not adaptive.numerator:
        return [term for term in terms if term.reconstruction]
    named = {term.name: term for term in terms}
    if absent := [name for name in adaptive.numerator if name not in named]:
        raise ValueError(f"the numerator of an adaptive weight is {absent[0]!r}, but the loss has {', '.join(named)}")
    return [named[name] for name in adaptive.numerator]


def _norm(value: Tensor, layer: Tensor) -> Tensor:
    """Norm of the gradient at the layer. Scaled before backward: gradients of a mean over many pixels underflow in fp16."""
    if not value.requires_grad:      # computed by frozen layers only
        return layer.new_zeros(())
    (gradient,) = torch.autograd.grad(_SCALE * value, layer, retain_graph=True, allow_unused=True)
    return layer.new_zeros(()) if gradient is None else averaged(gradient.float() / _SCALE).norm()
