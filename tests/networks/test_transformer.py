"""Parts of both transformers compared with timm, diffusers and loops; errors of their tables."""

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


def test_unpatchify_puts_every_value_at_its_position():
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
    theirs.fused_attn = False  # computes softmax(q k / sqrt(d)) v explicitly
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


def test_hooks_can_find_the_tensors_of_a_prediction():
    leaves = pytree.tree_leaves(Prediction(torch.zeros(1), torch.ones(1)))
    assert [leaf.item() for leaf in leaves] == [0.0, 1.0]


@pytest.mark.parametrize("kind", [SiT, UViT])
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"size": "huge"}, "'nano'.*'custom'"),
        ({"size": "custom", "depth": 2, "heads": 2}, 'is required with size = "custom", which has no default width'),
        ({"size": "nano", "depth": 8}, 'is 6 in size "nano", but is 8; use size = "custom"'),
        ({**TINY, "heads": 3}, "must divide width = 16, but is 3; 2 does"),
        ({**TINY, "heads": 6}, "must divide width = 16, but is 6; 4 does"),
        ({"patch": 0}, "greater than or equal to 1"),
        ({"pach": 2}, "Extra inputs"),
    ],
)
def test_an_invalid_table_is_an_error_with_valid_values(kind, keys, message):
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
def test_custom_sizes_must_fit_the_network(kind, keys, message):
    with pytest.raises(ValueError, match=message):
        kind(**{**TINY, **keys})


def test_an_unknown_size_is_the_only_problem_reported():
    with pytest.raises(ValueError, match="1 validation error"):
        SiT(size="huge")


@pytest.mark.parametrize("config", [SiT(), UViT(size="S-deep"), SiT(**TINY), UViT(**TINY, final_conv=False)])
def test_a_table_has_the_values_of_its_size_and_survives_its_own_dump(config):
    dump = config.model_dump(mode="json")
    assert min(dump["depth"], dump["width"], dump["heads"]) >= 1
    assert type(config).model_validate(dump) == config
