"""LightningDiT compared with a restatement of released-code.md#lightningdit and with parts of timm."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor
from torch.testing import assert_close

from smtool.networks.lightning_dit import LightningDiT, LightningDiTNetwork, rotary_table, rotated

SMALL = {"size": "custom", "depth": 2, "width": 32, "heads": 2}


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


def test_pairs_turn_by_row_and_column(turned):
    x = torch.randn(2, 3, 6, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table = rotary_table((2, 3), 16)
    assert_close(rotated(x, table), turned(x, (2, 3)), rtol=1e-12, atol=1e-12)
    cos, sin = (part.repeat_interleave(2, -1) for part in table)
    assert_close(rotated(x, table), apply_rot_embed_cat(x, torch.cat([sin, cos], -1)), rtol=1e-12, atol=1e-12)


def test_attention_depends_on_the_distance_of_tokens_only():
    """The product of a rotated query and key is that of the tokens moved by one row."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, 8, dtype=torch.float64, generator=generator).expand(-1, -1, 12, -1) for _ in range(2))
    table = rotary_table((4, 3), 8)
    products = (rotated(query, table) @ rotated(key, table).mT)[0, 0]
    assert products[0, 4].item() == pytest.approx(products[3, 7].item()) == pytest.approx(products[6, 10].item())
    assert products[0, 4].item() != pytest.approx(products[0, 5].item())


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_output_and_gradients_are_those_of_the_restatement(
    restated_parts, randomized, assert_equals_restatement, patch, qk_norm
):
    def restated(network: LightningDiTNetwork, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The network with the weights of ours, layer by layer."""
        parts = restated_parts(network)
        tokens = parts.linear("x_embedder.proj", parts.patches(x)) + parts.weights["pos_embed"]
        angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(128, dtype=torch.float64) / 128)
        times = parts.linear("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], 1))
        times = parts.linear("t_embedder.mlp.2", F.silu(times))
        c = F.silu(times + parts.weights["y_embedder.embedding_table.weight"][labels])[:, None]
        for number in range(network.config.depth):
            tokens = parts.block(number, tokens, c, heads=network.config.heads, qk_norm=qk_norm)
        return parts.output(tokens, c, x.shape)

    network = randomized(LightningDiT(**SMALL, patch=patch, qk_norm=qk_norm).build((3, 4, 6), 5))
    assert_equals_restatement(network, restated)


def test_initially_the_output_is_zero_and_norms_are_one():
    network = LightningDiT(**SMALL, qk_norm=True).build((4, 8, 4), 5)
    x, t, labels = torch.randn(2, 4, 8, 4), torch.rand(2), torch.tensor([1, 5])
    prediction = network(x, t, labels, tap=2)
    assert torch.equal(prediction.output, torch.zeros_like(x))
    assert torch.equal(prediction.tokens, network.x_embedder(x) + network.pos_embed)
    norms = [parameter for name, parameter in network.named_parameters() if "norm" in name]
    assert len(norms) == 2 * 4 + 1 and all(torch.equal(norm, torch.ones_like(norm)) for norm in norms)


def test_a_head_needs_pairs_for_both_axes():
    with pytest.raises(ValidationError, match="multiple of 4 numbers, pairs for rows and for columns, but 4 of width 24 have 6"):
        LightningDiT(size="custom", depth=1, width=24, heads=4)
