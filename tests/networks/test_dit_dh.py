"""DiT-DH compared with a restatement of released-code.md#dit-dh."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from smtool.networks.dit_dh import DiTDH, DiTDHNetwork

SMALL = {"size": "custom", "depth": 2, "width": 24, "heads": 2, "head_depth": 1, "head_width": 32, "head_heads": 2}


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


@pytest.mark.parametrize("patch", [1, 2])
def test_output_and_gradients_are_those_of_the_restatement(restated_parts, randomized, assert_equals_restatement, patch):
    def restated(network: DiTDHNetwork, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The network with the weights of ours, layer by layer. The modulation of every block begins with a further SiLU."""
        parts, config = restated_parts(network), network.config
        angles = 2 * math.pi * torch.outer(t, parts.weights["t_embedder.W"])
        time = parts.linear("t_embedder.mlp.0", torch.cat([angles.sin(), angles.cos()], 1))
        time = parts.linear("t_embedder.mlp.2", F.silu(time))
        c = F.silu(F.silu(time + parts.weights["y_embedder.embedding_table.weight"][labels]))[:, None]
        s = parts.linear("s_embedder.proj", parts.patches(x)) + parts.weights["pos_embed"]
        for number in range(config.depth):
            s = parts.block(number, s, c, heads=config.heads)
        s = F.silu(parts.linear("s_projector", F.silu(time[:, None] + s)))
        h = parts.linear("x_embedder.proj", parts.patches(x))
        for number in range(config.depth, config.depth + config.head_depth):
            h = parts.block(number, h, s, heads=config.head_heads)
        return parts.output(h, s, x.shape)

    assert_equals_restatement(randomized(DiTDH(**SMALL, patch=patch).build((3, 4, 6), 5)), restated)


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
    with pytest.raises(ValidationError, match="pairs for rows and for columns, but 3 of width 2048 have 682"):
        DiTDH(head_heads=3)
