"""LightningDiT compared with a restatement of released-code.md#lightningdit and with parts of timm."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from timm.layers import RmsNorm, SwiGLU
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor
from torch.testing import assert_close

from smtool.networks.lightning_dit import LightningDiT, LightningDiTNetwork, rotary_table, rotated

SMALL = {"size": "custom", "depth": 2, "width": 32, "heads": 2}


def randomized(network: LightningDiTNetwork) -> LightningDiTNetwork:
    """The network with random weights: layers with zero weights would not be tested."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name != "pos_embed":
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("size", "total"), [
    ("B", 130_556_192), ("L", 458_152_960), ("XL", 675_256_736), ("1p0B", 1_029_401_120), ("1p6B", 1_631_767_120),
])
def test_parameters_for_latents_of_va_vae(size, total):
    with torch.device("meta"):
        assert count(LightningDiT(size=size, patch=1).build((32, 16, 16), 1000)) == total


def test_keys_and_shapes_are_those_of_the_released_checkpoints():
    with torch.device("meta"):
        state = LightningDiT(size="L", patch=1).build((32, 16, 16), 1000).state_dict()
    width, hidden = 1024, 2730
    expected = {
        "pos_embed": (1, 256, width), "x_embedder.proj.weight": (width, 32, 1, 1), "x_embedder.proj.bias": (width,),
        "t_embedder.mlp.0.weight": (width, 256), "t_embedder.mlp.0.bias": (width,),
        "t_embedder.mlp.2.weight": (width, width), "t_embedder.mlp.2.bias": (width,),
        "y_embedder.embedding_table.weight": (1001, width), "final_layer.norm_final.weight": (width,),
        "final_layer.linear.weight": (32, width), "final_layer.linear.bias": (32,),
        "final_layer.adaLN_modulation.1.weight": (2 * width, width), "final_layer.adaLN_modulation.1.bias": (2 * width,),
    }
    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width), "mlp.w12": (2 * hidden, width),
              "mlp.w3": (width, hidden), "adaLN_modulation.1": (6 * width, width)}
    for block in range(24):
        expected |= {f"blocks.{block}.norm{number}.weight": (width,) for number in (1, 2)}
        for layer, shape in layers.items():
            expected[f"blocks.{block}.{layer}.weight"], expected[f"blocks.{block}.{layer}.bias"] = shape, shape[:1]
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def turned(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """One pair at a time, as a complex number."""
    result, size = x.clone(), x.shape[-1]
    for token in range(x.shape[2]):
        place = (token // grid[1], token % grid[1])
        for pair in range(size // 2):
            axis, number = divmod(pair, size // 4)
            angle = place[axis] / 10_000 ** (number / (size // 4))
            first, second = x[:, :, token, 2 * pair], x[:, :, token, 2 * pair + 1]
            values = torch.complex(first, second) * complex(math.cos(angle), math.sin(angle))
            result[:, :, token, 2 * pair], result[:, :, token, 2 * pair + 1] = values.real, values.imag
    return result


def test_pairs_turn_by_row_and_column():
    x = torch.randn(2, 3, 6, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table = rotary_table((2, 3), 16, torch.device("cpu"))
    assert_close(rotated(x, table), turned(x, (2, 3)), rtol=1e-12, atol=1e-12)
    cos, sin = (part.repeat_interleave(2, -1) for part in table)
    assert_close(rotated(x, table), apply_rot_embed_cat(x, torch.cat([sin, cos], -1)), rtol=1e-12, atol=1e-12)


def test_attention_depends_on_the_distance_of_tokens_only():
    """The product of a rotated query and key is that of the tokens moved by one row."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, 8, dtype=torch.float64, generator=generator).expand(-1, -1, 12, -1) for _ in range(2))
    table = rotary_table((4, 3), 8, torch.device("cpu"))
    products = (rotated(query, table) @ rotated(key, table).mT)[0, 0]
    assert products[0, 4].item() == pytest.approx(products[3, 7].item()) == pytest.approx(products[6, 10].item())
    assert products[0, 4].item() != pytest.approx(products[0, 5].item())


def restated(network: LightningDiTNetwork, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """The network with the weights of ours, layer by layer."""
    weights = dict(network.named_parameters())
    config, p, grid = network.config, network.config.patch, network.token_grid

    def linear(name: str, value: Tensor) -> Tensor:
        return F.linear(value, weights[f"{name}.weight"].flatten(1), weights[f"{name}.bias"])

    def norm(name: str, value: Tensor) -> Tensor:
        return torch.func.functional_call(RmsNorm(value.shape[-1], eps=1e-6), {"weight": weights[f"{name}.weight"]}, value)

    def swiglu(name: str, value: Tensor) -> Tensor:
        hidden = len(weights[f"{name}.w12.weight"]) // 2
        layer = SwiGLU(config.width, hidden).double()
        given = {f"fc2.{kind}": weights[f"{name}.w3.{kind}"] for kind in ("weight", "bias")}
        for part, rows in (("fc1_g", slice(hidden)), ("fc1_x", slice(hidden, None))):
            given |= {f"{part}.{kind}": weights[f"{name}.w12.{kind}"][rows] for kind in ("weight", "bias")}
        return torch.func.functional_call(layer, given, value)

    patches = F.unfold(x, p, stride=p).mT
    tokens = linear("x_embedder.proj", patches) + weights["pos_embed"]
    angles = t[:, None].double() * torch.exp(-math.log(10_000) * torch.arange(128, dtype=torch.float64) / 128)
    times = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], 1))))
    c = F.silu(times + weights["y_embedder.embedding_table.weight"][labels])
    for number in range(config.depth):
        name = f"blocks.{number}"
        parts = [part[:, None] for part in linear(f"{name}.adaLN_modulation.1", c).chunk(6, 1)]
        inside = norm(f"{name}.norm1", tokens) * (1 + parts[1]) + parts[0]
        qkv = linear(f"{name}.attn.qkv", inside).reshape(len(x), -1, 3, config.heads, config.width // config.heads)
        q, k, v = (qkv[:, :, index].transpose(1, 2) for index in range(3))
        if config.qk_norm:
            q, k = norm(f"{name}.attn.q_norm", q), norm(f"{name}.attn.k_norm", k)
        q, k = turned(q, grid), turned(k, grid)
        attended = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v
        tokens = tokens + parts[2] * linear(f"{name}.attn.proj", attended.transpose(1, 2).flatten(2))
        inside = norm(f"{name}.norm2", tokens) * (1 + parts[4]) + parts[3]
        tokens = tokens + parts[5] * swiglu(f"{name}.mlp", inside)
    shift, scale = (part[:, None] for part in linear("final_layer.adaLN_modulation.1", c).chunk(2, 1))
    values = linear("final_layer.linear", norm("final_layer.norm_final", tokens) * (1 + scale) + shift)
    return torch.einsum("nhwpqc->nchpwq", values.reshape(len(x), *grid, p, p, -1)).reshape(x.shape)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_output_and_gradients_are_those_of_the_restatement(patch, qk_norm):
    network = randomized(LightningDiT(**SMALL, patch=patch, qk_norm=qk_norm).build((3, 4, 6), 5)).double()
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


def test_initially_the_output_is_zero_and_norms_are_one():
    network = LightningDiT(**SMALL, qk_norm=True).build((4, 8, 4), 5)
    x, t, labels = torch.randn(2, 4, 8, 4), torch.rand(2), torch.tensor([1, 5])
    prediction = network(x, t, labels, tap=2)
    assert torch.equal(prediction.output, torch.zeros_like(x))
    assert torch.equal(prediction.tokens, network.x_embedder(x) + network.pos_embed)
    norms = [parameter for name, parameter in network.named_parameters() if "norm" in name]
    assert len(norms) == 2 * 4 + 1 and all(torch.equal(norm, torch.ones_like(norm)) for norm in norms)


def test_a_head_needs_pairs_for_both_axes():
    with pytest.raises(ValidationError, match="multiple of 4 numbers, pairs for rows and for columns, but has 6"):
        LightningDiT(size="custom", depth=1, width=24, heads=4)
