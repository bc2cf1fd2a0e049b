"""DiT-DH compared with a restatement of released-code.md#dit-dh."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torch.testing import assert_close

from smtool.networks.dit_dh import DiTDH, DiTDHNetwork

SMALL = {"size": "custom", "depth": 2, "width": 24, "heads": 2, "head_depth": 1, "head_width": 32, "head_heads": 2}


def randomized(network: DiTDHNetwork) -> DiTDHNetwork:
    """The network with random weights: layers with zero weights would not be tested."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name not in ("pos_embed", "t_embedder.W"):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize(("size", "total"), [("S", 196_455_764), ("B", 294_295_892), ("L", 621_744_436), ("XL", 838_675_796)])
def test_parameters_for_latents_of_rae(size, total):
    with torch.device("meta"):
        network = DiTDH(size=size, patch=1).build((768, 16, 16), 1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == total


def test_keys_are_those_of_the_released_checkpoints():
    with torch.device("meta"):
        state = DiTDH(size="S", patch=1).build((768, 16, 16), 1000).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items() if not name.startswith("blocks.")}
    assert shapes == {
        "pos_embed": (1, 256, 384), "s_embedder.proj.weight": (384, 768, 1, 1), "s_embedder.proj.bias": (384,),
        "x_embedder.proj.weight": (2048, 768, 1, 1), "x_embedder.proj.bias": (2048,), "s_projector.weight": (2048, 384),
        "s_projector.bias": (2048,), "t_embedder.W": (256,),
        "t_embedder.mlp.0.weight": (384, 512), "t_embedder.mlp.0.bias": (384,),
        "t_embedder.mlp.2.weight": (384, 384), "t_embedder.mlp.2.bias": (384,), "y_embedder.embedding_table.weight": (1001, 384),
        "final_layer.norm_final.weight": (2048,), "final_layer.linear.weight": (768, 2048), "final_layer.linear.bias": (768,),
        "final_layer.adaLN_modulation.1.weight": (4096, 2048), "final_layer.adaLN_modulation.1.bias": (4096,),
    }
    widths = [state[f"blocks.{number}.norm1.weight"].shape[0] for number in range(14)]
    assert widths == [384] * 12 + [2048] * 2
    parts = ["adaLN_modulation.1", "attn.proj", "attn.qkv", "mlp.w12", "mlp.w3"]
    names = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")} | {"norm1.weight", "norm2.weight"}
    assert {name.removeprefix("blocks.13.") for name in state if name.startswith("blocks.13.")} == names


def turned(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Queries or keys (B, heads, T, d), each pair as a complex number."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    row, column = (places.flatten().double() for places in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    n = x.shape[-1] // 4
    rates = torch.tensor([10_000 ** (-i / n) for i in range(n)], dtype=torch.float64)
    angle = torch.cat([torch.outer(row, rates), torch.outer(column, rates)], 1)
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def restated(network: DiTDHNetwork, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    weights, config, grid, p = dict(network.named_parameters()), network.config, network.token_grid, network.config.patch

    def linear(name: str, value: Tensor) -> Tensor:
        return F.linear(value, weights[f"{name}.weight"].flatten(1), weights[f"{name}.bias"])

    def norm(name: str, value: Tensor) -> Tensor:
        return value * (value.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * weights[f"{name}.weight"]

    def block(number: int, h: Tensor, c: Tensor, heads: int) -> Tensor:
        name = f"blocks.{number}"
        parts = linear(f"{name}.adaLN_modulation.1", F.silu(c)).chunk(6, -1)
        qkv = linear(f"{name}.attn.qkv", norm(f"{name}.norm1", h) * (1 + parts[1]) + parts[0])
        q, k, v = qkv.reshape(len(x), -1, 3, heads, h.shape[-1] // heads).permute(2, 0, 3, 1, 4)
        scores = turned(q, grid) @ turned(k, grid).mT / math.sqrt(q.shape[-1])
        h = h + parts[2] * linear(f"{name}.attn.proj", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        gate, value = linear(f"{name}.mlp.w12", norm(f"{name}.norm2", h) * (1 + parts[4]) + parts[3]).chunk(2, -1)
        return h + parts[5] * linear(f"{name}.mlp.w3", F.silu(gate) * value)

    patches = F.unfold(x, p, stride=p).mT
    angles = 2 * math.pi * torch.outer(t, weights["t_embedder.W"])
    time = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", torch.cat([angles.sin(), angles.cos()], 1))))
    c = F.silu(time + weights["y_embedder.embedding_table.weight"][labels])[:, None]
    s = linear("s_embedder.proj", patches) + weights["pos_embed"]
    for number in range(config.depth):
        s = block(number, s, c, config.heads)
    s = linear("s_projector", F.silu(time[:, None] + s))
    h = linear("x_embedder.proj", patches)
    for number in range(config.depth, config.depth + config.head_depth):
        h = block(number, h, s, config.head_heads)
    shift, scale = linear("final_layer.adaLN_modulation.1", F.silu(s)).chunk(2, -1)
    values = linear("final_layer.linear", norm("final_layer.norm_final", h) * (1 + scale) + shift)
    return torch.einsum("nhwpqc->nchpwq", values.reshape(len(x), *grid, p, p, -1)).reshape(x.shape)


@pytest.mark.parametrize("patch", [1, 2])
def test_output_and_gradients_are_those_of_the_restatement(patch):
    network = randomized(DiTDH(**SMALL, patch=patch).build((3, 4, 6), 5)).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 4, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    t, labels = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64), torch.tensor([0, 4, 5])
    ours, theirs = network(x, t, labels).output, restated(network, x, t, labels)
    assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    direction = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    gradients = [torch.autograd.grad((output * direction).sum(), [x, *learned]) for output in (ours, theirs)]
    for ours, theirs in zip(*gradients, strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_initially_the_output_is_zero_and_the_body_is_the_identity():
    network = DiTDH(**SMALL).build((4, 8, 4), 5)
    x, t, labels = torch.randn(2, 4, 8, 4), torch.rand(2), torch.tensor([1, 5])
    prediction = network(x, t, labels, tap=2)
    assert torch.equal(prediction.output, torch.zeros_like(x))
    assert torch.equal(prediction.tokens, network.s_embedder(x) + network.pos_embed)
    assert not network.t_embedder.W.requires_grad and 0.8 < network.t_embedder.W.std() < 1.2
    qkv = network.blocks[0].attn.qkv
    assert qkv.weight.abs().max() <= 1 / math.sqrt(24) and qkv.bias.abs().max() > 0      # PyTorch's own


def test_the_head_has_published_defaults_and_its_own_checks():
    assert (DiTDH(size="XL").head_depth, DiTDH(size="XL").head_width, DiTDH(size="XL").head_heads) == (2, 2048, 16)
    assert (DiTDH(size="nano").head_width, DiTDH(size="B", head_width=512).head_width) == (128, 512)
    with pytest.raises(ValidationError, match="a head must have a multiple of 4 numbers, but 3 of width 2048 have 682"):
        DiTDH(head_heads=3)
