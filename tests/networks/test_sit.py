"""SiT compared with diffusers' DiT with the same weights, and with a restatement of released-code.md#sit."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers import DiTTransformer2DModel
from timm.models.vision_transformer import Attention
from torch import Tensor
from torch.testing import assert_close

from smtool.networks.sit import SiT, SiTNetwork

SMALL = {"size": "custom", "depth": 3, "width": 24, "heads": 2}


def randomized(network: SiTNetwork) -> SiTNetwork:
    """The network with random weights: layers with zero weights would not be tested."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name != "pos_embed":
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_patches_of_one_cell_on_f16_latents_count_as_patches_of_two_on_f8_latents():
    with torch.device("meta"):
        assert count(SiT(patch=1).build((16, 16, 16), 1000)) == 130_500_112


def test_keys_and_shapes_are_those_of_repas_checkpoints():
    with torch.device("meta"):
        state = SiT(size="XL").build((4, 32, 32), 1000).state_dict()
    width = 1152
    expected = {
        "pos_embed": (1, 256, width),
        "x_embedder.proj.weight": (width, 4, 2, 2),
        "x_embedder.proj.bias": (width,),
        "t_embedder.mlp.0.weight": (width, 256),
        "t_embedder.mlp.0.bias": (width,),
        "t_embedder.mlp.2.weight": (width, width),
        "t_embedder.mlp.2.bias": (width,),
        "y_embedder.embedding_table.weight": (1001, width),
        "final_layer.linear.weight": (16, width),
        "final_layer.linear.bias": (16,),
        "final_layer.adaLN_modulation.1.weight": (2 * width, width),
        "final_layer.adaLN_modulation.1.bias": (2 * width,),
    }
    layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4), "adaLN_modulation.1": (6, 1)}
    for block in range(28):
        for layer, (rows, columns) in layers.items():
            expected[f"blocks.{block}.{layer}.weight"] = (rows * width, columns * width)
            expected[f"blocks.{block}.{layer}.bias"] = (rows * width,)
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def test_initially_the_output_is_zero_and_blocks_are_the_identity():
    network = SiT(**SMALL).build((4, 8, 4), 5)
    x, t, labels = torch.randn(2, 4, 8, 4), torch.rand(2), torch.tensor([1, 5])
    embedded = network.x_embedder(x) + network.pos_embed
    for tap in (1, 2, 3):
        prediction = network(x, t, labels, tap=tap)
        assert torch.equal(prediction.output, torch.zeros_like(x))
        assert torch.equal(prediction.tokens, embedded)
    assert network(x, t, labels).tokens is None


def test_initial_weights_have_the_published_distribution():
    network = SiT(size="custom", depth=1, width=256, heads=4).build((4, 8, 8), 1000)
    block = network.blocks[0]
    for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2, network.x_embedder.proj):
        rows, columns = layer.weight.flatten(1).shape
        limit = math.sqrt(6 / (rows + columns))  # Xavier's uniform density
        assert layer.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
        assert layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.04)  # at least 4096 numbers
        assert torch.equal(layer.bias, torch.zeros(rows))
    for layer in (network.t_embedder.mlp[0], network.t_embedder.mlp[2], network.y_embedder.embedding_table):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert layer.weight.abs().max() > 0.06  # normal, not uniform
    assert not network.pos_embed.requires_grad
    zero = {name for name, value in network.named_parameters() if not value.any()}
    assert {name for name in zero if "weight" in name} == {
        "blocks.0.adaLN_modulation.1.weight",
        "final_layer.adaLN_modulation.1.weight",
        "final_layer.linear.weight",
    }


@pytest.mark.parametrize("patch", [1, 2])
def test_it_is_diffusers_dit_with_the_same_weights(patch):
    network = randomized(SiT(**SMALL, patch=patch).build((3, 8, 8), 5)).double()
    twin = dit_twin(network)
    x, t, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.rand(4), torch.tensor([0, 2, 4, 5])
    with torch.no_grad():
        expected = twin(x, timestep=t, class_labels=labels).sample
    # sinusoids and the position table are float32 on both sides
    assert_close(network(x, t, labels).output, expected, rtol=1e-5, atol=1e-5)


def dit_twin(network: SiTNetwork) -> DiTTransformer2DModel:
    """diffusers' network with our weights. Each of its blocks has a copy of the time and class embedders."""
    config, (channels, side, _) = network.config, network.latent_shape
    twin = DiTTransformer2DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=channels,
        out_channels=channels,
        num_layers=config.depth,
        sample_size=side,
        patch_size=config.patch,
        num_embeds_ada_norm=network.num_classes,
        norm_eps=1e-6,
    )
    ours = network.state_dict()
    theirs = {}
    renamed = {
        "attn1.to_out.0": "attn.proj",
        "ff.net.0.proj": "mlp.fc1",
        "ff.net.2": "mlp.fc2",
        "norm1.linear": "adaLN_modulation.1",
    }
    for kind in ("weight", "bias"):
        theirs[f"pos_embed.proj.{kind}"] = ours[f"x_embedder.proj.{kind}"]
        theirs[f"proj_out_1.{kind}"] = ours[f"final_layer.adaLN_modulation.1.{kind}"]
        theirs[f"proj_out_2.{kind}"] = ours[f"final_layer.linear.{kind}"]
        for i in range(config.depth):
            block = f"transformer_blocks.{i}"
            for name, part in zip("qkv", ours[f"blocks.{i}.attn.qkv.{kind}"].chunk(3), strict=True):
                theirs[f"{block}.attn1.to_{name}.{kind}"] = part
            for their_name, our_name in renamed.items():
                theirs[f"{block}.{their_name}.{kind}"] = ours[f"blocks.{i}.{our_name}.{kind}"]
            theirs[f"{block}.norm1.emb.timestep_embedder.linear_1.{kind}"] = ours[f"t_embedder.mlp.0.{kind}"]
            theirs[f"{block}.norm1.emb.timestep_embedder.linear_2.{kind}"] = ours[f"t_embedder.mlp.2.{kind}"]
            theirs[f"{block}.norm1.emb.class_embedder.embedding_table.weight"] = ours["y_embedder.embedding_table.weight"]
    theirs["pos_embed.pos_embed"] = twin.pos_embed.pos_embed  # diffusers' own table
    twin.load_state_dict({name: value for name, value in theirs.items() if name in twin.state_dict()}, strict=True)
    for block in twin.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0  # DiT's frequencies; diffusers' default differs
    return twin.double().eval()


@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("patch", [1, 2])
def test_output_and_tokens_equal_a_plain_restatement(num_classes, patch):
    network = randomized(SiT(**SMALL, patch=patch).build((3, 4, 6), num_classes)).double()
    x, t = torch.randn(4, 3, 4, 6, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    labels = torch.tensor([0, 2, 4, 5]) if num_classes else None
    expected, stream = plain_sit(network.state_dict(), x, t, labels, heads=2, patch=patch)
    # float64 on both sides: only the order of additions differs
    for tap in (1, 2, 3):
        prediction = network(x, t, labels, tap=tap)
        assert_close(prediction.output, expected, rtol=1e-9, atol=1e-11)
        assert_close(prediction.tokens, stream[tap - 1], rtol=1e-9, atol=1e-11)


def plain_sit(state: dict[str, Tensor], x: Tensor, t: Tensor, labels: Tensor | None, *, heads: int, patch: int) -> tuple:
    """SiT as one function of the weights (released-code.md#sit): output, and the tokens after each block."""
    width = state["pos_embed"].shape[-1]

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def silu(value: Tensor) -> Tensor:
        return value / (1 + torch.exp(-value))

    def norm(value: Tensor) -> Tensor:
        return (value - value.mean(-1, keepdim=True)) / torch.sqrt(value.var(-1, keepdim=True, correction=0) + 1e-6)

    def gelu(value: Tensor) -> Tensor:
        return 0.5 * value * (1 + torch.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))

    def attention(block: int, value: Tensor) -> Tensor:
        oracle = Attention(width, num_heads=heads, qkv_bias=True).double()
        oracle.fused_attn = False
        prefix = f"blocks.{block}.attn."
        oracle.load_state_dict({name.removeprefix(prefix): part for name, part in state.items() if name.startswith(prefix)})
        return oracle(value)

    angle = torch.stack([t * 10000 ** (-i / 128) for i in range(128)], 1)
    c = linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", torch.cat([angle.cos(), angle.sin()], 1))))
    if labels is not None:
        c = c + state["y_embedder.embedding_table.weight"][labels]
    c = c[:, None]
    grid = F.conv2d(x, state["x_embedder.proj.weight"], state["x_embedder.proj.bias"], stride=patch)
    h = grid.flatten(2).mT + state["pos_embed"]
    stream = []
    for block in range(3):
        six = linear(f"blocks.{block}.adaLN_modulation.1", silu(c))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (six[..., i * width : (i + 1) * width] for i in range(6))
        h = h + gate_a * attention(block, norm(h) * (1 + scale_a) + shift_a)
        hidden = gelu(linear(f"blocks.{block}.mlp.fc1", norm(h) * (1 + scale_m) + shift_m))
        h = h + gate_m * linear(f"blocks.{block}.mlp.fc2", hidden)
        stream.append(h)
    two = linear("final_layer.adaLN_modulation.1", silu(c))
    patches = linear("final_layer.linear", norm(h) * (1 + two[..., width:]) + two[..., :width])
    output = torch.zeros_like(x)
    for row in range(grid.shape[2]):
        for column in range(grid.shape[3]):
            cell = patches[:, row * grid.shape[3] + column].reshape(len(x), patch, patch, x.shape[1])
            output[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = cell.permute(0, 3, 1, 2)
    return output, stream


def test_times_close_to_each_other_stay_apart_under_autocast():
    network = randomized(SiT(**SMALL).build((4, 4, 4), 5))
    t, labels = torch.tensor([0.998, 0.999, 1.0]), torch.tensor([1, 1, 1])
    expected = network._condition(t, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network._condition(t, labels)
    assert torch.equal(found, expected)


def test_small_scales_are_not_lost_under_autocast():
    network = SiT(size="custom", depth=1, width=8, heads=1, patch=1).build((8, 1, 1), 0)
    with torch.no_grad():
        network.final_layer.linear.weight.copy_(torch.eye(8))
        network.final_layer.adaLN_modulation[1].bias[8:] = 0.5  # 1 + scale = 1.5
    x, t = torch.randn(1, 8, 1, 1), torch.zeros(1)

    def scaled(scale: float) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            network.final_layer.adaLN_modulation[1].bias[8:] = scale
            received = []
            hook = network.final_layer.linear.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
            network(x, t, None)
            hook.remove()
            return received[0]

    assert_close(scaled(0.001) / scaled(0.0), torch.full((1, 1, 8), 1.001), rtol=0, atol=1e-5)
