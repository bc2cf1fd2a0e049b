"""Networks compiled block by block compute what they compute without; blocks of one kind are compiled once."""

import copy
from functools import partial

import pytest
import timm
import torch
from torch._dynamo.utils import counters
from torch.testing import assert_close

from smtool.diffusion.alignment import IRepa, RepaDog
from smtool.errors import RecipeError
from smtool.networks.compiling import blocks_of, compile_each
from smtool.networks.dit_dh import DiTDH
from smtool.networks.lightning_dit import LightningDiT
from smtool.networks.recompute import recompute_activations
from smtool.networks.sit import SiT
from smtool.networks.uvit import UViT

GRID = (4, 4)


@pytest.fixture(autouse=True)
def without_code_for_processors(monkeypatch):
    """The graphs are traced and run by PyTorch's operations: what Inductor writes for them takes long to build."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def graphs_made() -> int:
    """Without the one that shows that PyTorch can compile."""
    return counters["stats"]["unique_graphs"] - 1


def gradients(network, alignment=None):
    network.zero_grad()
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 4, 8, 8, generator=generator), torch.rand(2, generator=generator)
    found = network(x, t, torch.tensor([1, 2]), tap=2)
    loss = found.output.square().mean()
    if alignment is not None:
        loss = loss + alignment(found.tokens, torch.randn(2, 5, *GRID, generator=generator))
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in network.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize(
    ("config", "graphs"),
    [(SiT, 1), (LightningDiT, 1), (DiTDH, 2), (UViT, 2)],      # the wide blocks of DiT-DH; U-ViT's blocks with a skip connection
)
def test_blocks_of_one_kind_share_a_graph_and_change_nothing(config, graphs):
    wide = {"head_depth": 2, "head_width": 64, "head_heads": 2} if config is DiTDH else {}
    network = config(size="custom", depth=4, width=48, heads=3, **wide).build((4, 8, 8), 5)
    for parameter in network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = gradients(network)
    compile_each(blocks_of(network))
    assert_close(gradients(network), expected, rtol=1e-4, atol=1e-6)
    assert graphs_made() == graphs
    assert len(list(copy.deepcopy(network).parameters())) == len(list(network.parameters()))


@pytest.mark.parametrize("table", [IRepa(teacher="t", kernel=3), RepaDog(teacher="t", sigma1=0.5, sigma2=2.0)])
def test_an_alignment_is_one_graph_also_with_recomputed_blocks(table):
    network = SiT(size="custom", depth=2, width=48, heads=3).build((4, 8, 8), 5)
    alignment = table.build(48, GRID, teacher_dim=5, teacher_grid=GRID)
    recompute_activations(network)
    expected = gradients(network, alignment)
    compile_each([*blocks_of(network), alignment])
    assert_close(gradients(network, alignment), expected, rtol=1e-4, atol=1e-6)
    assert graphs_made() == 2 and not counters["graph_break"]


def test_blocks_of_a_frozen_vit_are_found():
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=3, num_classes=0).eval()
    with torch.no_grad():
        expected = vit.forward_features(torch.ones(1, 3, 32, 32))
        compile_each(blocks_of(vit))
        assert_close(vit.forward_features(torch.ones(1, 3, 32, 32)), expected)
    assert len(blocks_of(vit)) == 3 and graphs_made() == 1
    assert blocks_of(torch.nn.Conv2d(1, 1, 1)) == []


def test_a_machine_that_cannot_compile_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile.func, backend=broken))
    said = r"compile: PyTorch \S+ cannot compile for cpu on this machine: RuntimeError: no C\+\+ compiler"
    with pytest.raises(RecipeError, match=rf"^{said}\n  Leave out compile = true"):
        compile_each([torch.nn.Linear(1, 1)])


def broken(graph, inputs):
    raise RuntimeError("no C++ compiler\nand more lines")
