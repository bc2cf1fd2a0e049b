"""Backward passes of fake CUDA tensors, node by node in Python: PyTorch's engine asks the driver for a context of each device.

The checks of the engine are kept: a gradient on another device is an error; its shape and dtype become those of what it is for.
Hooks of tensors are not called.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node, get_gradient_edge

_backward, _grad = Tensor.backward, torch.autograd.grad
Edge = tuple[Node, int]
"""A node of the graph and the number of one of its inputs in the backward pass."""


def backward(tensor: Tensor, gradient: Tensor | None = None, retain_graph: Any = None, create_graph: bool = False,
             inputs: Any = None) -> None:
    """Tensor.backward."""
    if not isinstance(tensor, FakeTensor):
        return _backward(tensor, gradient, retain_graph, create_graph, inputs)
    assert inputs is None, "not built"
    _run([_edge(tensor)], [torch.ones_like(tensor) if gradient is None else gradient], create_graph=create_graph)
    return None


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: Any = None, create_graph: bool = False,
         **keys: Any) -> tuple[Tensor | None, ...]:
    """torch.autograd.grad."""
    ends, starts = _listed(outputs), _listed(inputs)
    if not isinstance(ends[0], FakeTensor):
        return _grad(outputs, inputs, grad_outputs, retain_graph, create_graph, **keys)
    return tuple(gradients(ends, starts, grad_outputs, create_graph=create_graph))


def gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], grad_outputs: Any = None, *, create_graph: bool = False
) -> list[Tensor | None]:
    """The gradient of the sum of the outputs at each input, of real or fake tensors; None where there is none."""
    given = [torch.ones_like(end) for end in outputs] if grad_outputs is None else _listed(grad_outputs)
    wanted = [_edge(start) for start in inputs]
    found = _run([_edge(end) for end in outputs], given, wanted, create_graph=create_graph)
    return [found.get(edge) for edge in wanted]


def _run(
    roots: Sequence[Edge], gradients: Sequence[Tensor], wanted: Sequence[Edge] = (), *, create_graph: bool
) -> dict[Edge, Tensor]:
    """Gradients at the wanted edges; without any, add them to `.grad` of the leaves."""
    order = _ordered(node for node, _ in roots)
    used = _leading(order, {node for node, _ in wanted}) if wanted else set(order)
    pending: dict[Node, dict[int, Tensor]] = {}
    found: dict[Edge, Tensor] = {}
    with torch.set_grad_enabled(create_graph):
        for edge, gradient in zip(roots, gradients, strict=True):
            _add(pending, edge, gradient, "the loss")
        for node in order:
            given = pending.pop(node, {})
            found.update({(node, slot): gradient for slot, gradient in given.items() if (node, slot) in wanted})
            if not given or node not in used:
                continue
            if _is_leaf(node):
                if not wanted:
                    before = node.variable.grad
                    node.variable.grad = given[0].detach() if before is None else before + given[0]
            elif any(after in used for after, _ in node.next_functions):
                for edge, gradient in zip(node.next_functions, _called(node, given), strict=False):
                    if gradient is not None and edge[0] in used:
                        _add(pending, edge, gradient, node.name())
    return found


def _ordered(roots: Iterable[Node]) -> list[Node]:
    """All nodes that gradients of the roots reach, each before those that its own gradient goes to."""
    finished: dict[Node, None] = {}
    stack = [(node, False) for node in roots]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            finished[node] = None
        elif node not in finished:
            stack.append((node, True))
            stack += [(after, False) for after, _ in node.next_functions if after is not None and after not in finished]
    return list(reversed(finished))


def _leading(order: Sequence[Node], wanted: set[Node]) -> set[Node]:
    """The nodes from which a wanted one is reached, and these themselves."""
    leading: set[Node] = set()
    for node in reversed(order):
        if node in wanted or any(after in leading for after, _ in node.next_functions):
            leading.add(node)
    return leading


def _called(node: Any, given: dict[int, Tensor]) -> Sequence[Tensor | None]:
    metadata = node._input_metadata
    gradients = [given.get(slot) for slot in range(max(1, len(metadata)))]
    if isinstance(node, BackwardCFunction):      # functions in Python get zeros where C++'s get nothing
        zeros = [torch.zeros(one.shape, dtype=one.dtype, device=one.device) if gradient is None else gradient
                 for gradient, one in zip(gradients, metadata, strict=True)]
        return _listed(node.apply(*zeros))
    return _listed(node(*gradients))


def _add(pending: dict[Node, dict[int, Tensor]], edge: Edge, gradient: Tensor, origin: str) -> None:
    node, slot = edge
    ideal: Any = node.variable if _is_leaf(node) else node._input_metadata[slot]
    if gradient.device != ideal.device:
        raise RuntimeError(f"{origin} gave a gradient on {gradient.device} for a tensor on {ideal.device}")
    if gradient.shape != ideal.shape:
        gradient = gradient.sum_to_size(ideal.shape)
    gradient = gradient.to(ideal.dtype)
    slots = pending.setdefault(node, {})
    slots[slot] = slots[slot] + gradient if slot in slots else gradient


def _is_leaf(node: Any) -> bool:
    return hasattr(node, "variable")


def _edge(tensor: Tensor) -> Edge:
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (tuple, list)) else (value,)
