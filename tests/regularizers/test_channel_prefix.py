"""Channel prefixes compared with a network whose convolutions beside the latent are cut, the draws, and refused tables."""

from collections import Counter

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from smtool.data.batches import ImageBatch
from smtool.errors import RecipeError
from smtool.networks.dc_ae import DCAE
from smtool.randomness import initializing, streams
from smtool.recipe import TrainAE, load
from smtool.regularizers import ChannelPrefix, Pair, Shapes
from smtool.tasks.autoencoder import AutoencoderTask, Reconstruction

SHAPES = Shapes((2, 3, 16, 16), (2, 8, 4, 4))


def test_loss_and_gradients_are_those_of_convolutions_cut_to_the_prefix():
    """The mean over the prefixes of a step, in float64, each through sliced weights."""
    with initializing(0, "dc-ae"):
        network = DCAE(downsample=4, latent_channels=8, channels=(8, 8, 16), encoder_blocks=(0, 1, 1), decoder_blocks=(0, 1, 1),
                       attention=(), batch_norm=(), latent_shortcuts=False, last_activation="silu").build().double()
    method = ChannelPrefix(lengths=(2, 5, 8), per_step=3, always="longest").build(SHAPES, None)
    task = AutoencoderTask(network, {"channel_prefix": method}, reconstruction=Reconstruction(loss="l2"), perceptual=None,
                           adversary=None, discriminator=None, flip=False)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    draws = streams(0, 5, "autoencoder", batch=2)
    total = task.loss("autoencoder", ImageBatch(images, None, ("a", "b")), draws, 5).total
    total.backward()
    found = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    lengths = method.draw(draws, SHAPES)
    assert lengths[0] == 8 and len(lengths) == 3 and len(set(lengths)) > 1
    encoder, decoder, losses = network.encoder, network.decoder, []
    for length in lengths:
        x = encoder.conv_in(images)
        for block in encoder.down_blocks:
            x = block(x)
        z = F.conv2d(x, encoder.conv_out.weight[:length], encoder.conv_out.bias[:length], padding=1)
        y = F.conv2d(z, decoder.conv_in.weight[:, :length], decoder.conv_in.bias, padding=1)
        for block in reversed(decoder.up_blocks):
            y = block(y)
        losses.append(((decoder.conv_out(F.silu(decoder.norm_out(y))) - images) ** 2).mean())
    expected = sum(losses) / 3
    expected.backward()
    assert_close(total.double(), expected, rtol=1e-6, atol=0)      # the loss itself is float32
    for name, parameter in network.named_parameters():
        assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6 * parameter.grad.abs().max().item(), msg=name)


@pytest.mark.parametrize(
    ("always", "per_step", "fixed"), [("none", 2, ()), ("longest", 2, (8,)), ("both-ends", 3, (8, 2)), ("both-ends", 2, (8, 2))]
)
def test_draws_are_uniform_over_the_list_and_alike_on_all_ranks(always, per_step, fixed):
    method = ChannelPrefix(lengths=(2, 4, 6, 8), per_step=per_step, always=always).build(SHAPES, None)
    counts: Counter[int] = Counter()
    for step in range(1000):
        whole = streams(0, step, "autoencoder", batch=4)
        one, two = (method.draw(part, SHAPES) for part in (whole.at(0, 2), whole.at(2, 4)))
        assert one == two and len(one) == per_step and one[: len(fixed)] == fixed
        counts.update(one[len(fixed) :])
    drawn = per_step - len(fixed)
    assert all(abs(counts[length] - 250 * drawn) < 70 * max(drawn, 1) for length in (2, 4, 6, 8) if drawn)      # sd 14
    assert sum(counts.values()) == 1000 * drawn


def test_each_pair_becomes_one_per_prefix_and_weights_add_up():
    method = ChannelPrefix(lengths=(3, 8), per_step=2).build(SHAPES, None)
    pairs = [Pair(torch.zeros(2, 3, 16, 16), torch.ones(2, 8, 4, 4), 0.5), Pair(torch.zeros(2, 3, 8, 8), torch.ones(2, 8, 2, 2))]
    found = method.before_decode(pairs, (8, 3))
    assert [one.weight for one in found] == [0.25, 0.5, 0.25, 0.5]
    assert [int(one.latents[0, :, 0, 0].sum()) for one in found] == [8, 8, 3, 3]
    assert torch.equal(found[2].latents[:, :3], torch.ones(2, 3, 4, 4)) and not found[2].latents[:, 3:].any()


@pytest.mark.parametrize(("table", "said"), [
    ("{lengths=[4,16,17]}", r"channel_prefix\.lengths: has 17, but there are 16 latent channels; use numbers up to 16"),
    ("{lengths=[4,8]}", r"channel_prefix\.lengths: ends at 8, so channels 9 to 16 would never train; add 16"),
    ("{lengths=[16,16]}", r"channel_prefix\.lengths: has a number twice"),
    ("{lengths=[8,16],always='both-ends'}", r"channel_prefix\.per_step: must be at least 2 with always = \"both-ends\""),
    ("{lengths=[]}", r"channel_prefix\.lengths"),
    ("{lengths=[0,16]}", r"channel_prefix\.lengths"),
])
def test_wrong_tables_are_refused_with_their_key(table, said):
    with pytest.raises(RecipeError, match=said):
        load("dc-ae/1-full", TrainAE, [f"regularizers.channel_prefix={table}"])


def test_it_combines_with_dsm_and_esm():
    changes = ["regularizers.dsm={}", "regularizers.esm={}", "regularizers.channel_prefix={lengths=[4,16]}"]
    assert len(load("dc-ae/1-full", TrainAE, changes).tables.regularizers.present) == 3
