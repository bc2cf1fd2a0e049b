"""DC-AE compared with diffusers' AutoencoderDC and with double loops."""

import copy

import pytest
import torch
from diffusers import AutoencoderDC
from pydantic import ValidationError
from torch.testing import assert_close

from smtool.checkpoints.foreign.dc_ae import config_of_diffusers
from smtool.checkpoints.foreign.export_dc_ae import described
from smtool.networks.dc_ae import DCAE
from smtool.networks.dc_ae_layers import Down, Up, linear_attention
from smtool.networks.recompute import recompute_activations
from smtool.networks.shapes_only import shapes_only
from smtool.randomness import initializing

SMALL = {"downsample": 4, "latent_channels": 4, "channels": (8, 16, 32), "attention": (2,), "head_channels": 8}
TABLES = {
    "1.0": {**SMALL, "encoder_blocks": (0, 1, 2), "decoder_blocks": (0, 2, 1)},
    "1.5": {**SMALL, "encoder_blocks": (0, 1, 2), "decoder_blocks": (0, 2, 1), "attention": (), "batch_norm": (),
            "latent_shortcuts": False, "last_activation": "silu"},
    "sana": {**SMALL, "encoder_blocks": (2, 1, 1), "decoder_blocks": (1, 1, 2), "batch_norm": (), "attention_scales": (5,),
             "resampling": "convolution"},
    "full size": {**SMALL, "encoder_blocks": (1, 1, 1), "decoder_blocks": (1, 1, 1)},
}
V15 = {"attention": (), "batch_norm": (), "latent_shortcuts": False, "last_activation": "silu"}
COUNTS = [
    ({}, 323_356_460, 123_172_384, 200_184_076),
    ({"downsample": 64, "latent_channels": 128}, 676_896_140, 264_550_528, 412_345_612),
    ({"downsample": 128, "latent_channels": 512}, 1_120_682_252, 415_661_056, 705_021_196),
    ({"encoder_blocks": (2, 2, 2, 3, 3, 3), "decoder_blocks": (3,) * 6, "batch_norm": (), "attention_scales": (5,),
      "resampling": "convolution"}, 312_250_275, None, None),
    ({"latent_channels": 128, "encoder_blocks": (0, 5, 10, 4, 4, 4), "decoder_blocks": (0, 5, 10, 4, 4, 4), **V15},
     523_609_740, None, None),
    ({"downsample": 64, "latent_channels": 128, "channels": (128, 256, 512, 512, 1024, 1024, 1024),
      "encoder_blocks": (0, 5, 10, 4, 4, 4, 4), "decoder_blocks": (0, 5, 10, 4, 4, 4, 4), **V15}, 714_741_644, None, None),
]


def of_diffusers(config: DCAE) -> AutoencoderDC:
    """The network of diffusers with random weights, biases and statistics."""
    given = {key: value for key, value in described(config).items() if key != "_class_name"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoencoderDC(**given).eval()
        for name, tensor in made.state_dict().items():
            if name.endswith((".bias", "running_mean")):
                tensor.normal_(std=0.1)
            if "norm" in name and name.endswith((".weight", "running_var")):
                tensor.uniform_(0.5, 1.5)
    return made


@pytest.mark.parametrize("keys, total, encoder, decoder", COUNTS)
def test_published_sizes_have_the_published_counts(keys, total, encoder, decoder):
    with shapes_only():
        network = DCAE(**keys).build()
    counts = [sum(p.numel() for p in part.parameters()) for part in (network, network.encoder, network.decoder)]
    assert counts[0] == total and (encoder is None or counts[1:] == [encoder, decoder])


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("cells", [(8, 9), (2, 3)])      # above and below 8 cells, where diffusers has another form of attention
def test_it_computes_what_diffusers_computes(name, cells):
    config = DCAE(**TABLES[name])
    theirs = of_diffusers(config)
    ours = config.build().eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 4 * cells[0], 4 * cells[1], generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        latents = theirs.encode(images).latent
        assert latents.std() > 0.05
        assert_close(ours.encode(images).mean, latents, rtol=1e-4, atol=1e-5)
        assert_close(ours.decode(latents), theirs.decode(latents).sample, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.encode(images).sample(torch.ones_like(latents)), ours.encode(images).mean)


def test_training_steps_equal_those_of_diffusers_in_float64():
    """Loss and gradients, with BatchNorm in training mode. diffusers' RMSNorm and attention are float32 inside."""
    config = DCAE(**TABLES["1.0"])
    theirs = of_diffusers(config).double().train()
    ours = config.build().double().train()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    losses = [(ours.decode(ours.encode(images).mean) - images).abs().mean(),
              (theirs.decode(theirs.encode(images).latent).sample - images).abs().mean()]
    for loss in losses:
        loss.backward()
    assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        theirs_here = expected[name].grad
        assert (parameter.grad - theirs_here).norm() < 1e-4 * theirs_here.norm() + 1e-9, name
    running = dict(theirs.named_buffers())
    assert running and all(torch.allclose(buffer.double(), running[name].double()) for name, buffer in ours.named_buffers())


@pytest.mark.parametrize("name", TABLES)
def test_the_config_of_diffusers_gives_back_the_table(name):
    config = DCAE(**TABLES[name])
    assert config_of_diffusers(described(config)) == config


@pytest.mark.parametrize(
    "changes",
    [{"decoder_act_fns": "silu"}, {"decoder_in_shortcut": False}, {"decoder_block_out_channels": (8, 16, 64)},
     {"decoder_conv_act_fn": "gelu"}, {"decoder_qkv_multiscales": ((), (), (3,))}, {"upsample_block_type": "interpolate"}],
)
def test_a_network_of_diffusers_that_the_table_cannot_state_is_none(changes):
    assert config_of_diffusers({**described(DCAE(**TABLES["1.0"])), **changes}) is None


def test_linear_attention_is_the_normalized_sum_over_positions():
    query, key, value = torch.randn(3, 1, 2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    query = query + 1      # otherwise some weights of a position are all 0
    found = linear_attention(query, key, value)
    for head in range(2):
        for i in range(6):
            weights = [float(query[0, head, :, i].clamp(min=0) @ key[0, head, :, j].clamp(min=0)) for j in range(6)]
            mean = sum(w * value[0, head, :, j] for j, w in enumerate(weights)) / sum(weights)
            assert_close(found[0, head, :, i], mean)


def test_shortcuts_average_and_repeat_adjacent_channels():
    down, up = Down(3, 4, shuffle=True), Up(4, 3, shuffle=True)
    for layer in (down, up):
        torch.nn.init.zeros_(layer.conv.weight)
        torch.nn.init.zeros_(layer.conv.bias)
    x = torch.randn(1, 3, 4, 6)
    found = down(x)
    for row, column in ((0, 0), (1, 2)):
        cell = [x[0, c, 2 * row + i, 2 * column + j] for c in range(3) for i in range(2) for j in range(2)]
        for group in range(4):
            assert_close(found[0, group, row, column], sum(cell[3 * group + k] for k in range(3)) / 3)
            assert_close(torch.stack(cell).unflatten(0, (4, 3)).mean(1)[group], found[0, group, row, column])
    z = torch.randn(1, 4, 2, 3)
    shown = up(z)
    for c in range(3):
        for i in range(2):
            for j in range(2):
                assert_close(shown[0, c, 2 + i, 2 + j], z[0, (4 * c + 2 * i + j) // 3, 1, 1])


def test_recomputed_activations_leave_the_same_gradients_and_statistics():
    with initializing(0, "deep"):
        plain = DCAE(**TABLES["1.0"]).build().train()
    other = copy.deepcopy(plain)
    assert recompute_activations(other) == 6
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    for network in (plain, other):
        network.decode(network.encode(images).mean).square().mean().backward()
    for (name, one), two in zip(plain.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad), name
    for (name, one), two in zip(plain.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(one, two[1]), name


def test_the_digest_differs_with_settings_that_no_weight_shows():
    weights = DCAE(**TABLES["1.5"]).build().state_dict()
    found = set()
    for changes in ({}, {"latent_shortcuts": True}, {"last_activation": "relu"}):
        network = DCAE(**{**TABLES["1.5"], **changes}).build()
        network.load_state_dict(weights)
        found.add(network.digest)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"downsample": 16}, "nothing is published for downsample = 16"),
        ({**SMALL, "encoder_blocks": (1, 1), "decoder_blocks": (1, 1, 1)}, "2 numbers of blocks halve the image 1 times"),
        ({**SMALL, "encoder_blocks": (1, 0, 1), "decoder_blocks": (1, 1, 1)}, "or 0 at level 0"),
        ({**TABLES["1.0"], "channels": (8, 16, 48)}, "averages groups of 4 \\* 16 / 48 channels"),
        ({**TABLES["1.0"], "channels": (8, 18, 36), "head_channels": 36}, "multiple of 4 for pixel-shuffle, but is 18"),
        ({**TABLES["1.0"], "latent_channels": 5}, "5 does not divide the last width 32"),
        ({**TABLES["1.0"], "head_channels": 12}, "12 does not divide 32"),
        ({**TABLES["1.0"], "attention": (3,)}, "attention names levels \\[3\\]"),
        ({**TABLES["1.0"], "batch_norm": (2,)}, "level 2 has EfficientViT blocks"),
        ({**TABLES["1.0"], "attention_scales": (4,)}, "must be odd"),
    ],
)
def test_impossible_sizes_are_refused_with_what_would_work(keys, said):
    with pytest.raises(ValidationError, match=said):
        DCAE(**keys)
