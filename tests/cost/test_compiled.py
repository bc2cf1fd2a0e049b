"""Compiled blocks: FLOPs against PyTorch's counter, bytes and memory against closed forms of what one kernel reads and writes."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from smtool.cost import compiled
from smtool.cost.compiled import as_compiled
from smtool.cost.counting import counting
from smtool.cost.cuda_autocast import cuda_autocast
from smtool.networks.compiling import blocks_of
from smtool.networks.recompute import Recomputable, recompute_activations
from smtool.networks.sit import SiT

ROWS, WIDTH = 64, 32
SIT = SiT(size="custom", depth=3, width=48, heads=3)
SHAPES, CLASSES = ((16, 4, 8, 8), (16,)), 5


class Chain(Recomputable):
    """Three operations on each value, of which each is a kernel if nothing fuses them."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x * y + 1)


class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, 4 * WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.linear(x)).mean(1)


def counted(module, *shapes, use=(), backward=False):
    module.to("meta")
    inputs = [torch.empty(shape, device="meta", requires_grad=backward) for shape in shapes]
    with counting() as count, as_compiled(list(use)):
        out = module(*inputs)
        if backward:
            out.backward(torch.empty_like(out))
    return count


def test_a_chain_of_operations_reads_its_inputs_and_writes_its_output_once():
    chain, tensor = Chain(), 4 * ROWS * WIDTH
    assert counted(chain, (ROWS, WIDTH), (ROWS, WIDTH)).bytes == (3 + 2 + 2) * tensor
    count = counted(chain, (ROWS, WIDTH), (ROWS, WIDTH), use=[chain])
    assert [(kernel.name, kernel.bytes) for kernel in count.kernels] == [("compiled", 3 * tensor)]
    assert "_compiled_call_impl" not in vars(chain)


def test_the_backward_pass_computes_cheap_values_again_instead_of_storing_them():
    """From gradient, output (whose square tanh needs) and both inputs: two gradients. Nothing but these is stored."""
    chain, tensor = Chain(), 4 * ROWS * WIDTH
    count = counted(chain, (ROWS, WIDTH), (ROWS, WIDTH), use=[chain], backward=True)
    forward, backward = (kernel for kernel in count.kernels if kernel.name == "compiled")
    assert forward.bytes == 3 * tensor and backward.bytes in (5 * tensor, 6 * tensor)
    chain.recompute = True
    again = counted(chain, (ROWS, WIDTH), (ROWS, WIDTH), use=[chain], backward=True)
    found = [kernel.bytes for kernel in again.kernels if kernel.name == "compiled"]
    assert found == [forward.bytes, forward.bytes, backward.bytes]


def test_memory_has_the_buffers_inside_of_a_graph():
    """The product (ROWS, 4 WIDTH) lives until its mean (ROWS,) is there."""
    step = Step()
    with torch.no_grad():
        count = counted(step, (ROWS, WIDTH), use=[step])
    assert count.peak_bytes == 4 * ROWS * (4 * WIDTH + 1) and count.flops == 2 * ROWS * WIDTH * 4 * WIDTH


@pytest.mark.parametrize("recompute", [False, True])
def test_a_compiled_transformer_has_the_flops_of_pytorchs_counter_and_fewer_bytes(recompute):
    """Real float32 steps on the CPU. Recomputed blocks add their forward pass. Blocks of one kind are asked for once."""
    real, classes = SIT.build((4, 8, 8), CLASSES), torch.zeros(16, dtype=torch.int64)
    if recompute:
        recompute_activations(real)
    with FlopCounterMode(display=False) as counter:
        real(*(torch.rand(shape, requires_grad=True) for shape in SHAPES), classes).output.sum().backward()
    found = {}
    compiled._traced.clear()
    for use in (False, True):
        network = SIT.build((4, 8, 8), CLASSES).to("meta")
        if recompute:
            recompute_activations(network)
        inputs = [torch.empty(shape, device="meta", requires_grad=True) for shape in SHAPES]
        with cuda_autocast(), counting(network) as found[use], as_compiled(blocks_of(network) if use else []):
            network(*inputs, classes.to("meta")).output.sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)
    assert found[True].flops == found[False].flops == counter.get_total_flops()
    assert found[True].bytes < 0.9 * found[False].bytes and len(found[True].kernels) < len(found[False].kernels)
    assert len(compiled._traced) == 1


def test_an_unknown_compiler_is_said(monkeypatch):
    def broken(*args, **keys):
        raise AttributeError("no such interface")

    monkeypatch.setattr(compiled, "_traced", {})
    monkeypatch.setattr("torch._functorch.aot_autograd.aot_function", broken)
    why = compiled.obstacle.__wrapped__()
    assert why == f"PyTorch {torch.__version__} does not say which kernels it would compile of a Sequential: AttributeError."
    monkeypatch.undo()
    assert compiled.obstacle() is None
