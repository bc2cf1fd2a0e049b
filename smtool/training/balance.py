"""Terms of a loss, and the gradient-norm ratios that balance some of them."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from smtool.training.distributed import averaged

_SCALE = 256.0
"""A power of two, so that nothing but fp16 is changed by it."""


@dataclass(frozen=True)
class AdaptiveWeight:
    """How a term is scaled: by |grad of the reconstruction| / max(|grad of the term|, floor) at one layer, at most `largest`.

    Source: facts section 2.1 (decoder: GAN; floor 1e-8, at most 1e4), 5.3 (encoder: VA-VAE).
    """

    layer: Literal["encoder", "decoder"]
    floor: float = 1e-8
    largest: float = 1e4


@dataclass(frozen=True)
class Term:
    """A named scalar that enters the loss as weight * value. Balanced terms are held against the reconstruction terms."""

    name: str
    value: Tensor
    weight: float = 1.0
    balance: AdaptiveWeight | None = None
    reconstruction: bool = False


@dataclass(frozen=True)
class Loss:
    """total: the scalar to differentiate. values: each unweighted term and each balancing factor, detached, for the log."""

    total: Tensor
    values: dict[str, Tensor]


def balanced(terms: list[Term], *, encoder: Tensor, decoder: Tensor) -> Loss:
    """Add the terms up; those with a balance are scaled by their gradient-norm ratio at the encoder's or decoder's last layer.

    The ratio uses gradients averaged over all ranks, is detached, and is taken in float32.
    """
    values = {term.name: term.value.detach() for term in terms}
    layers = {"encoder": encoder, "decoder": decoder}
    weighted = []
    for term in terms:
        if term.balance is not None:
            factor = _ratio(terms, term, layers[term.balance.layer], term.balance)
            values[f"{term.name}_factor"] = factor
            term = replace(term, value=term.value * factor)
        weighted.append(term.weight * term.value)
    return Loss(torch.stack([value.float() for value in weighted]).sum(), values)


def _ratio(terms: list[Term], term: Term, layer: Tensor, balance: AdaptiveWeight) -> Tensor:
    reference = torch.stack([other.weight * other.value for other in terms if other.reconstruction]).sum()
    ratio = _norm(reference, layer) / _norm(term.value, layer).clamp(min=balance.floor)
    return ratio.clamp(max=balance.largest).detach()


def _norm(value: Tensor, layer: Tensor) -> Tensor:
    """Scaled on the way, since a pixel's share of a mean over a batch of images is less than fp16 can tell from 0."""
    (gradient,) = torch.autograd.grad(_SCALE * value, layer, retain_graph=True, allow_unused=True)
    return layer.new_zeros(()) if gradient is None else averaged(gradient.float() / _SCALE).norm()
