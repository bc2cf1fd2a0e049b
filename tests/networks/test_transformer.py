"""Parts of both transformers against timm, diffusers and plain loops; what their tables and forwards refuse."""

import math

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding
from timm.models.vision_transformer import Attention
from torch.testing import assert_close
from torch.utils import _pytree as pytree

from smtool.networks.sit import SiT
from smtool.networks.transformer import (
    MLP,
    LatentTransformer,
    PatchEmbed,
    Prediction,
    SelfAttention,
    position_table,
    time_features,
    unpatchify,
)
from smtool.networks.uvit import UViT

TINY = {"size": "custom", "depth": 2, "width": 16, "heads": 2}
# float64 on both sides; only the order of additions differs.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (4, 2)])
def test_position_table_equals_its_definition_entry_by_entry(grid):
    rows, columns = grid
    table = position_table(grid, 24)
    assert table.shape == (rows * columns, 24)
    for row in range(rows):
        for column in range(columns):
            for i in range(6):
                x, y = column * 10000 ** (-i / 6), row * 10000 ** (-i / 6)
                expected = [math.sin(x), math.cos(x), math.sin(y), math.cos(y)]
                found = table[row * columns + column, [i, 6 + i, 12 + i, 18 + i]].tolist()
                assert found == pytest.approx(expected, abs=6e-8)  # half a unit in the last place of float32


def test_position_table_of_a_square_grid_is_that_of_diffusers():
    expected = get_2d_sincos_pos_embed(64, 16, base_size=16, output_type="pt")
    assert_close(position_table((16, 16), 64), torch.as_tensor(expected).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("times", [[0.0, 0.25, 1.0], [1.0, 500.0, 1000.0]])
def test_time_features_equal_their_formula(times):
    found = time_features(torch.tensor(times, dtype=torch.float64), 10)
    for row, t in zip(found.tolist(), times, strict=True):
        angles = [t * 10000 ** (-i / 5) for i in range(5)]
        assert row == pytest.approx([*map(math.cos, angles), *map(math.sin, angles)], abs=1e-10)


def test_time_features_are_those_of_diffusers_in_float32():
    t = torch.linspace(0, 1, 50)
    expected = get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert_close(time_features(t, 256), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_time_features_are_never_in_half_precision(dtype):
    assert time_features(torch.tensor([0.5], dtype=dtype), 8).dtype == torch.float32


@pytest.mark.parametrize(("patch", "shape"), [(1, (3, 5)), (2, (6, 4)), (4, (4, 8))])
def test_patch_embedding_is_its_convolution_in_contiguous_memory(patch, shape):
    embed = PatchEmbed(3, 8, patch=patch).double()
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    expected = F.conv2d(x, embed.proj.weight, embed.proj.bias, stride=patch).flatten(2).mT
    assert_close(embed(x), expected, **CLOSE)
    assert embed(x).is_contiguous()
    assert not expected.is_contiguous()


def test_unpatchify_puts_every_number_in_its_place():
    rows, columns, p, channels = 2, 3, 2, 3
    tokens = torch.randn(2, rows * columns, p * p * channels)
    latents = unpatchify(tokens, grid=(rows, columns), patch=p)
    assert latents.shape == (2, channels, rows * p, columns * p)
    for channel in range(channels):
        for y in range(rows * p):
            for x in range(columns * p):
                token = (y // p) * columns + x // p
                place = ((y % p) * p + x % p) * channels + channel
                assert torch.equal(latents[:, channel, y, x], tokens[:, token, place])


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_attention_with_its_weights_is_timms(qkv_bias):
    ours = SelfAttention(24, heads=3, qkv_bias=qkv_bias).double()
    theirs = Attention(24, num_heads=3, qkv_bias=qkv_bias).double()
    theirs.fused_attn = False  # softmax(q k / sqrt(d)) v written out
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    assert_close(ours(x), theirs(x), **CLOSE)


@pytest.mark.parametrize("gelu", ["tanh", "none"])
def test_mlp_with_its_weights_is_timms(gelu):
    ours = MLP(8, gelu=gelu).double()
    theirs = timm.layers.Mlp(8, 32, act_layer=lambda: torch.nn.GELU(approximate=gelu)).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = 3 * torch.randn(2, 7, 8, dtype=torch.float64)
    assert_close(ours(x), theirs(x), **CLOSE)


def test_the_tensors_of_a_prediction_are_found_by_those_who_hook_outputs():
    leaves = pytree.tree_leaves(Prediction(torch.zeros(1), torch.ones(1)))
    assert [leaf.item() for leaf in leaves] == [0.0, 1.0]


@pytest.mark.parametrize("kind", [SiT, UViT])
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"size": "huge"}, "'nano'.*'custom'"),
        ({"size": "custom", "depth": 2, "heads": 2}, 'is required with size = "custom", which has no width'),
        ({"size": "nano", "depth": 8}, 'is 6 in size "nano", but is 8; size = "custom" takes your own'),
        ({**TINY, "heads": 3}, "must divide width = 16, but is 3; 2 does"),
        ({**TINY, "heads": 6}, "must divide width = 16, but is 6; 4 does"),
        ({"patch": 0}, "greater than or equal to 1"),
        ({"pach": 2}, "Extra inputs"),
    ],
)
def test_a_table_that_cannot_be_built_says_what_to_give(kind, keys, message):
    with pytest.raises(ValueError, match=message):
        kind(**keys)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        (SiT, {"width": 18}, "multiple of 4"),
        (UViT, {"width": 15, "heads": 5}, "must be a multiple of 2"),
        (UViT, {"depth": 3}, "must be even"),
    ],
)
def test_sizes_of_ones_own_must_suit_the_network(kind, keys, message):
    with pytest.raises(ValueError, match=message):
        kind(**{**TINY, **keys})


def test_an_unknown_size_is_the_only_problem_reported():
    with pytest.raises(ValueError, match="1 validation error"):
        SiT(size="huge")


@pytest.mark.parametrize("config", [SiT(), UViT(size="S-deep"), SiT(**TINY), UViT(**TINY, final_conv=False)])
def test_a_table_says_its_numbers_and_survives_its_own_dump(config):
    dump = config.model_dump(mode="json")
    assert min(dump["depth"], dump["width"], dump["heads"]) >= 1
    assert type(config).model_validate(dump) == config


@pytest.mark.parametrize("kind", [SiT, UViT])
def test_a_latent_that_patches_do_not_tile_is_refused_with_the_patch_that_does(kind):
    config = kind(**TINY, patch=4)
    assert config.token_grid((4, 8, 12)) == (2, 3)
    with pytest.raises(ValueError, match=r"latent of 8x6 .* patch = 4: .* patch = 2 works"):
        config.build((4, 8, 6), 10)


@pytest.mark.parametrize("kind", [SiT, UViT])
def test_what_the_rest_of_smtool_asks_a_network(kind):
    network: LatentTransformer = kind(**TINY, patch=2).build((4, 8, 6), 10)
    assert (network.token_grid, network.width, network.num_classes) == ((4, 3), 16, 10)
    assert network.latent_shape == (4, 8, 6)
    assert network.depth == {SiT: 2, UViT: 3}[kind]
    assert network.config == kind(**TINY, patch=2)


@pytest.mark.parametrize("kind", [SiT, UViT])
def test_calls_that_cannot_be_answered_say_why(kind):
    x, t, labels = torch.zeros(2, 4, 8, 6), torch.zeros(2), torch.zeros(2, dtype=torch.int64)
    conditional, unconditional = kind(**TINY).build((4, 8, 6), 10), kind(**TINY).build((4, 8, 6), 0)
    with pytest.raises(ValueError, match=r"latents are 4x6x8, but .* built for 4x8x6"):
        conditional(x.mT, t, labels)
    with pytest.raises(ValueError, match="has 10 classes and needs labels; class 10 stands for none"):
        conditional(x, t, None)
    with pytest.raises(ValueError, match="no classes: pass labels = None"):
        unconditional(x, t, labels)
    for tap in (0, conditional.depth + 1):
        with pytest.raises(ValueError, match=f"after block {tap}: this network has blocks 1 to {conditional.depth}"):
            conditional(x, t, labels, tap=tap)
    with pytest.raises(ValueError, match="num_classes is -1"):
        kind(**TINY).build((4, 8, 6), -1)


@pytest.mark.parametrize("kind", [SiT, UViT])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_loss_of_tapped_tokens_reaches_only_the_blocks_before(kind, num_classes):
    network = kind(**{**TINY, "depth": 4}).build((4, 4, 4), num_classes)
    labels = torch.tensor([0, 3]) if num_classes else None
    prediction = network(torch.randn(2, 4, 4, 4), torch.rand(2), labels, tap=2)
    prediction.tokens.square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    blocks = {SiT: ["blocks.0", "blocks.1"], UViT: ["in_blocks.0", "in_blocks.1"]}[kind]
    assert {".".join(name.split(".")[:2]) for name in reached if "blocks" in name} == set(blocks)
    assert not any(name.startswith(("mid_block", "final_layer", "norm", "decoder_pred")) for name in reached)


@pytest.mark.parametrize("kind", [SiT, UViT])
def test_every_parameter_that_learns_is_used(kind):
    network = randomized(kind(**TINY).build((4, 4, 4), 3))
    network(torch.randn(2, 4, 4, 4), torch.rand(2), torch.tensor([0, 3])).output.square().sum().backward()
    assert {name for name, parameter in network.named_parameters() if parameter.grad is None} <= {"pos_embed"}


@pytest.mark.parametrize("kind", [SiT, UViT])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_compiled_as_one_graph_it_is_the_same_function(kind, num_classes):
    network = randomized(kind(**TINY).build((4, 4, 6), num_classes))
    x, t, labels = torch.randn(2, 4, 4, 6), torch.rand(2), torch.tensor([0, 3]) if num_classes else None
    expected = network(x, t, labels, tap=1)
    found = torch.compile(network, fullgraph=True, backend="aot_eager")(x, t, labels, tap=1)
    assert_close(found.output, expected.output)
    assert_close(found.tokens, expected.tokens)


@pytest.mark.parametrize("kind", [SiT, UViT])
def test_a_sample_does_not_depend_on_its_batch(kind):
    network = randomized(kind(**TINY).build((4, 4, 6), 3)).double()
    x, t, labels = torch.randn(3, 4, 4, 6, dtype=torch.float64), torch.rand(3, dtype=torch.float64), torch.tensor([0, 3, 1])
    together = network(x, t, labels).output
    for i in range(3):
        assert_close(network(x[i : i + 1], t[i : i + 1], labels[i : i + 1]).output, together[i : i + 1], **CLOSE)


@pytest.mark.parametrize("kind", [SiT, UViT])
def test_under_autocast_the_residual_stream_stays_float32(kind):
    network = randomized(kind(**{**TINY, "depth": 4}).build((4, 4, 4), 3))
    x, t, labels = torch.randn(8, 4, 4, 4), torch.rand(8), torch.randint(4, (8,))
    for tap in range(1, network.depth + 1):
        expected = network(x, t, labels, tap=tap)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(x, t, labels, tap=tap)
        assert found.tokens.dtype == torch.float32
        assert relative(found.tokens, expected.tokens) < 0.02
        assert relative(found.output.float(), expected.output) < 0.02  # bfloat16 rounds by 0.4 %


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def randomized(network: LatentTransformer) -> LatentTransformer:
    """Weights of a trained network's order of size, adaLN-zero's included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network
