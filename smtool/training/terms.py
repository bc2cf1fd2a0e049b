"""Terms of a loss, and their adaptive weights by ratios of gradient norms."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smtool.training.distributed import averaged

Layer = Literal["encoder", "decoder"]
_SCALE = 4096.0
"""Scale of values before they are differentiated here, against underflow in fp16. A power of two, so that it adds no rounding."""


@dataclass(frozen=True)
class Cut:
    """A place in the graph at which terms are differentiated once: tensors, and detached copies from which terms are computed.

    The gradients of such a term end at the copies. `weighted_sum` takes them there, continues from the tensors for the norms of
    adaptive weights, and hands them to the total: networks behind the cut (LPIPS, a discriminator) have one backward pass each.
    """

    tensors: tuple[Tensor, ...]
    copies: tuple[Tensor, ...]

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> "Cut":
        """A cut at tensors that require gradients."""
        tensors = tuple(tensors)
        return cls(tensors, tuple(x.detach().requires_grad_() for x in tensors))


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
    """A named scalar that enters the loss as weight * value, or as weight * factor * value with an adaptive weight.

    cut: the value depends on the trained weights through the copies of this cut alone; a loss has one cut at most.
    """

    name: str
    value: Tensor
    weight: float = 1.0
    adaptive_weight: AdaptiveWeight | None = None
    reconstruction: bool = False
    cut: Cut | None = None


@dataclass(frozen=True)
class Loss:
    """A loss. total: the scalar to differentiate; values: unweighted terms and adaptive factors, detached, for the log."""

    total: Tensor
    values: dict[str, Tensor]


def weighted_sum(terms: list[Term], layers: Mapping[Layer, Tensor] = {}) -> Loss:
    """The weighted sum of the terms; terms with an adaptive weight are also scaled by their ratio of gradient norms.

    layers: weights of the last layers that adaptive weights use. The ratio is computed, in float32 or wider, from gradients
    averaged over all ranks, and is detached. Values of terms with a cut are differentiated here and cannot be again; the gradient
    of the total is, to rounding, that of the same terms without a cut. Raises ValueError if a numerator names an absent term.
    """
    values = {term.name: term.value.detach() for term in terms}
    numerators = {term.name: _numerator(terms, term.adaptive_weight) for term in terms if term.adaptive_weight is not None}
    parts, factors = _parts(terms, numerators), {}
    weighted = []
    for term in terms:
        value = term.value if term.cut is None else term.value.detach()
        if (adaptive := term.adaptive_weight) is not None:
            layer = layers[adaptive.layer]
            pull, push = _norm(terms, numerators[term.name], parts, layer), _norm(terms, {term.name: 1.0}, parts, layer)
            factor = (pull / (push + adaptive.offset).clamp(min=adaptive.floor)).clamp(max=adaptive.cap).detach()
            values[f"{term.name}_factor"] = factors[term.name] = factor
            value = value * factor
        weighted.append((term.weight * value).float())
    total = torch.stack(weighted).sum()
    if parts:
        gradients = _summed(part.times(part.weight * factors.get(part.adaptive, 1.0) / _SCALE) for part in parts)
        total = _WithGradients.apply(total, *gradients, *parts[0].cut.tensors)
    return Loss(total, values)


@dataclass(frozen=True)
class _Part:
    """Terms behind the cut that enter every sum together: a term with an adaptive weight, or others of the same numerators.

    adaptive: name of the former, else empty; weight: its weight, else 1; scaled: gradients at the copies, times _SCALE, of the
    former's value or of the weighted sum of the others, in float32 or wider.
    """

    names: frozenset[str]
    adaptive: str
    weight: float
    cut: Cut
    scaled: Sequence[Tensor]

    def times(self, factor: float | Tensor) -> list[Tensor]:
        return [gradient * factor for gradient in self.scaled]


def _parts(terms: list[Term], numerators: Mapping[str, Mapping[str, float]]) -> list[_Part]:
    groups: dict[tuple[str, ...], list[Term]] = {}
    for term in terms:
        if term.cut is not None:
            inside = [name for name, weights in numerators.items() if term.name in weights]
            groups.setdefault((term.name if term.adaptive_weight else "", *inside), []).append(term)
    return [_part(group, adaptive) for (adaptive, *_), group in groups.items()]


def _part(group: list[Term], adaptive: str) -> _Part:
    """Differentiate the group at the copies; what its networks stored for the backward pass is freed."""
    cut = group[0].cut
    assert cut is not None
    value = group[0].value if adaptive else torch.stack([term.weight * term.value for term in group]).sum()
    found = torch.autograd.grad(value, cut.copies, torch.full_like(value, _SCALE), allow_unused=True)
    scaled = [
        (torch.zeros_like(x) if gradient is None else gradient).to(torch.promote_types(x.dtype, torch.float32))
        for x, gradient in zip(cut.copies, found, strict=True)
    ]
    return _Part(frozenset(term.name for term in group), adaptive, group[0].weight if adaptive else 1.0, cut, scaled)


def _summed(several: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(gradients).sum(0) for gradients in zip(*several, strict=True)]


def _numerator(terms: list[Term], adaptive: AdaptiveWeight) -> dict[str, float]:
    """Names and weights of the terms in the numerator."""
    named = {term.name: term for term in terms}
    if absent := [name for name in adaptive.numerator if name not in named]:
        raise ValueError(f"the numerator of an adaptive weight is {absent[0]!r}, but the loss has {', '.join(named)}")
    names = adaptive.numerator or [term.name for term in terms if term.reconstruction]
    return {name: named[name].weight for name in names}


def _norm(terms: list[Term], weights: Mapping[str, float], parts: Sequence[_Part], layer: Tensor) -> Tensor:
    """Norm of the gradient of a weighted sum of terms at the layer: from the values of terms without a cut, and from the cut.

    Scaled before the backward pass: gradients of a mean over many pixels underflow in fp16.
    """
    outputs, starts = [], []
    named = [term for term in terms if term.name in weights and term.cut is None and term.value.requires_grad]
    if named:      # else computed by frozen layers only, or behind the cut
        value = torch.stack([weights[term.name] * term.value for term in named]).sum()
        outputs, starts = [value], [torch.full_like(value, _SCALE)]
    behind = [part for part in parts if part.names <= weights.keys()]
    if behind:
        gradients = _summed(part.times(weights.get(part.adaptive, 1.0)) for part in behind)
        outputs += behind[0].cut.tensors
        starts += [one.to(x.dtype) for one, x in zip(gradients, behind[0].cut.tensors, strict=True)]
    if not outputs:
        return layer.new_zeros(())
    (gradient,) = torch.autograd.grad(outputs, layer, starts, retain_graph=True, allow_unused=True)
    if gradient is None:
        return layer.new_zeros(())
    return averaged(gradient.to(torch.promote_types(gradient.dtype, torch.float32)) / _SCALE).norm()


class _WithGradients(torch.autograd.Function):
    """A scalar, and tensors on which it depends besides, with known gradients: (scalar, gradient..., tensor...) -> scalar."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *others: Tensor) -> Tensor:
        gradients, tensors = others[: len(others) // 2], others[len(others) // 2 :]
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [x.dtype for x in tensors]
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        known = [(gradient * one).to(dtype) for one, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return (gradient, *[None] * len(known), *known)
