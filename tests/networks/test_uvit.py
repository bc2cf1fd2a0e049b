"""U-ViT compared with a model of timm's blocks with the same weights (released-code.md#u-vit)."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor
from torch.testing import assert_close

from smtool.networks.uvit import UViT, UViTNetwork

SMALL = {"size": "custom", "depth": 4, "width": 24, "heads": 2}


def randomized(network: UViTNetwork) -> UViTNetwork:
    """The network with random weights and biases, larger than the initial ones."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_h_has_no_convolution_at_the_end():
    with torch.device("meta"):
        assert count(UViT(size="H", final_conv=False).build((4, 32, 32), 0)) == 499_677_712


def test_classes_add_their_embeddings_a_null_class_and_one_position():
    with torch.device("meta"):
        assert count(UViT(size="L").build((4, 32, 32), 1000)) == 285_737_124 + 1001 * 1024 + 1024


def test_keys_and_shapes_are_those_of_published_checkpoints():
    with torch.device("meta"):
        state = UViT(size="L").build((4, 32, 32), 1000).state_dict()
    width = 1024
    expected = {
        "pos_embed": (1, 258, width),
        "patch_embed.proj.weight": (width, 4, 2, 2),
        "patch_embed.proj.bias": (width,),
        "label_emb.weight": (1001, width),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "decoder_pred.weight": (16, width),
        "decoder_pred.bias": (16,),
        "final_layer.weight": (4, 4, 3, 3),
        "final_layer.bias": (4,),
    }
    blocks = ["mid_block", *(f"{half}_blocks.{i}" for half in ("in", "out") for i in range(10))]
    for block in blocks:
        for norm in ("norm1", "norm2"):
            expected |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        expected |= {f"{block}.attn.qkv.weight": (3 * width, width)}
        expected |= {f"{block}.attn.proj.weight": (width, width), f"{block}.attn.proj.bias": (width,)}
        expected |= {f"{block}.mlp.fc1.weight": (4 * width, width), f"{block}.mlp.fc1.bias": (4 * width,)}
        expected |= {f"{block}.mlp.fc2.weight": (width, 4 * width), f"{block}.mlp.fc2.bias": (width,)}
        if block.startswith("out"):
            expected |= {f"{block}.skip_linear.weight": (width, 2 * width), f"{block}.skip_linear.bias": (width,)}
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def test_initial_weights_have_the_published_distribution():
    network = UViT(size="custom", depth=2, width=256, heads=4).build((4, 32, 32), 1000)
    linears = [network.in_blocks[0].attn.qkv, network.mid_block.mlp.fc1, network.out_blocks[0].skip_linear, network.decoder_pred]
    for layer in linears:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)  # at least 4096 numbers
        assert layer.weight.abs().max() > 0.06  # normal, not uniform
        assert layer.bias is None or not layer.bias.any()
    assert network.pos_embed.std().item() == pytest.approx(0.02, rel=0.02)
    assert network.label_emb.weight.std().item() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize(("patch", "final_conv"), [(1, True), (2, True), (2, False)])
def test_output_and_tokens_equal_a_twin_of_timms_blocks(num_classes, patch, final_conv):
    network = randomized(UViT(**SMALL, patch=patch, final_conv=final_conv).build((3, 4, 6), num_classes)).double()
    x, t = torch.randn(3, 3, 4, 6, dtype=torch.float64), torch.tensor([1.0, 499.0, 1000.0], dtype=torch.float64)
    labels = torch.tensor([0, 2, 5]) if num_classes else None
    expected, stream = plain_uvit(network.state_dict(), x, t, labels, patch=patch)
    # float64 on both sides: only the order of additions differs
    for tap in range(1, 6):
        prediction = network(x, t, labels, tap=tap)
        assert_close(prediction.output, expected, rtol=1e-9, atol=1e-11)
        assert_close(prediction.tokens, stream[tap - 1], rtol=1e-9, atol=1e-11)


def plain_uvit(state: dict[str, Tensor], x: Tensor, t: Tensor, labels: Tensor | None, *, patch: int) -> tuple:
    """U-ViT as one function of the weights (released-code.md#u-vit): output, and the patch tokens after each of five blocks."""

    def timm_block(name: str, tokens: Tensor) -> Tensor:
        block = Block(24, num_heads=2, qkv_bias=False, norm_layer=partial(torch.nn.LayerNorm, eps=1e-5)).double()
        block.attn.fused_attn = False
        weights = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        weights = {key: value for key, value in weights.items() if "skip_linear" not in key}
        block.load_state_dict(weights, strict=True)
        return block(tokens)

    angle = torch.stack([t * math.exp(-math.log(10000) * i / 12) for i in range(12)], 1)
    sequence = [torch.cat([angle.cos(), angle.sin()], 1)[:, None]]
    grid = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    sequence.append(grid.flatten(2).mT)
    if labels is not None:
        sequence = [state["label_emb.weight"][labels][:, None], *sequence]
    extra = len(sequence) - 1  # tokens before the patches
    h = torch.cat(sequence, 1) + state["pos_embed"]
    stream, skips = [], []
    for i in range(2):
        h = timm_block(f"in_blocks.{i}", h)
        skips.append(h)
        stream.append(h)
    h = timm_block("mid_block", h)
    stream.append(h)
    for i in range(2):
        joined = torch.cat([h, skips[1 - i]], -1)  # last in, first out
        name = f"out_blocks.{i}"
        h = timm_block(name, joined @ state[f"{name}.skip_linear.weight"].T + state[f"{name}.skip_linear.bias"])
        stream.append(h)
    normalized = F.layer_norm(h, (24,), state["norm.weight"], state["norm.bias"], eps=1e-5)
    patches = (normalized @ state["decoder_pred.weight"].T + state["decoder_pred.bias"])[:, extra:]
    output = torch.zeros_like(x)
    for row in range(grid.shape[2]):
        for column in range(grid.shape[3]):
            cell = patches[:, row * grid.shape[3] + column].reshape(len(x), patch, patch, x.shape[1])
            output[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = cell.permute(0, 3, 1, 2)
    if "final_layer.weight" in state:
        output = F.conv2d(output, state["final_layer.weight"], state["final_layer.bias"], padding=1)
    return output, [tokens[:, extra:] for tokens in stream]


@pytest.mark.parametrize(
    ("size", "shape", "num_classes", "parameters"),
    [
        ("M", (24, 8, 8), 0, 129_987_096),
        ("S", (24, 16, 16), 0, 44_267_544),
        ("S", (24, 16, 16), 1000, 44_780_056),
        ("M", (24, 16, 16), 1000, 130_903_320),
        ("S", (54, 16, 16), 0, 44_298_294),
        ("M", (48, 32, 32), 0, 130_761_264),
    ],
)
def test_at_patch_1_without_a_final_convolution_the_networks_are_dctdiffs(size, shape, num_classes, parameters):
    """CIFAR-10, CelebA 64, ImageNet 64 (two sizes), FFHQ 128 and FFHQ 256 (arXiv 2412.15032, released code)."""
    with torch.device("meta"):
        network = UViT(size=size, patch=1, final_conv=False, null_class=False).build(shape, num_classes)
    assert count(network) == parameters


@pytest.mark.parametrize(
    ("size", "side", "patch", "parameters"),
    [("M", 32, 4, 130_024_068), ("S", 64, 4, 44_292_228), ("S", 128, 8, 44_439_828), ("M", 256, 8, 130_982_676)],
)
def test_on_pixels_the_networks_are_the_published_baselines(size, side, patch, parameters):
    with torch.device("meta"):
        assert count(UViT(size=size, patch=patch).build((3, side, side), 0)) == parameters


def test_without_a_null_class_the_network_has_one_embedding_less():
    with torch.device("meta"):
        with_null, without = (count(UViT(size="S", null_class=null).build((4, 32, 32), 1000)) for null in (True, False))
    assert with_null - without == 512
