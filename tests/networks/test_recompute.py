"""Activation checkpointing changes memory and time, not results."""

import copy

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from smtool.networks import AnyBackbone
from smtool.networks.recompute import Recomputable, recompute_activations
from smtool.networks.sd_vae import SDVAE
from smtool.networks.taesd import TAESD
from smtool.randomness import initializing


def autoencoder():
    with initializing(0, "autoencoder"):
        config = SDVAE(downsample=4, latent_channels=2, channels=(8, 8, 16), norm_groups=4, blocks_per_level=1, attention=(2,))
        return config.build().to(memory_format=torch.channels_last)


def tiny():
    with initializing(0, "tiny"):
        return TAESD(latent_channels=4, width=8).build()


def transformer(kind: str):
    sizes = {"kind": kind, "size": "custom", "depth": 4, "width": 32, "heads": 2, "patch": 2}
    with initializing(0, kind):
        return TypeAdapter(AnyBackbone).validate_python(sizes).build((4, 8, 8), 5)


def of_images(network):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior = network.encode(images)
    return (network.decode(posterior.mean) - images).square().mean() + posterior.mean.square().mean()


def of_latents(network):
    draw = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 4, 8, 8, generator=draw), torch.rand(2, generator=draw)
    predicted = network(x, t, torch.tensor([1, 5]), tap=2)
    return (predicted.output - x).square().mean() + predicted.tokens.square().mean()


CASES = [
    (autoencoder, of_images), (tiny, of_images),
    (lambda: transformer("sit"), of_latents), (lambda: transformer("uvit"), of_latents),
]  # fmt: skip


class Stored:
    """Counts the bytes of the different tensors that autograd stores for the backward pass."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.hooks.__exit__(*error)

    def _pack(self, tensor):
        self.storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor


@pytest.mark.parametrize(("build", "loss"), CASES, ids=["sd-vae", "taesd", "sit", "uvit"])
def test_loss_and_gradients_are_the_same_bits(build, loss):
    plain, checkpointed = build(), build()
    assert recompute_activations(checkpointed) > 0
    values = [loss(network) for network in (plain, checkpointed)]
    for value in values:
        value.backward()
    assert torch.equal(*values)
    for (name, one), (_, other) in zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True):
        if one.requires_grad:
            assert torch.equal(one.grad, other.grad), name


@pytest.mark.parametrize(("build", "loss"), CASES, ids=["sd-vae", "taesd", "sit", "uvit"])
def test_fewer_bytes_are_stored_for_the_backward_pass(build, loss):
    plain, checkpointed = build(), build()
    recompute_activations(checkpointed)
    stored = []
    for network in (plain, checkpointed):
        with Stored() as counted:
            loss(network)
        stored.append(sum(counted.storages.values()))
    assert stored[1] < stored[0] / 2


def test_the_gradient_of_an_adaptive_weight_can_be_taken_before_the_backward_pass():
    """As for an adversarial loss: the gradient at the decoder's last layer, then the whole backward pass of the same graph."""
    plain, checkpointed = autoencoder(), autoencoder()
    recompute_activations(checkpointed)
    found = []
    for network in (plain, checkpointed):
        value = of_images(network)
        (first,) = torch.autograd.grad(value, network.encoder_last_layer, retain_graph=True)
        value.backward()
        found.append((first, network.encoder_last_layer.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[1][0], found[1][1])


class Dropped(Recomputable):
    """A block with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x):
        return nn.functional.dropout(self.linear(x), 0.5, self.training)


def test_dropout_is_the_same_in_both_passes():
    with initializing(0, "dropout"):
        plain = Dropped()
    checkpointed = copy.deepcopy(plain)
    recompute_activations(checkpointed)
    gradients = []
    for block in (plain, checkpointed):
        torch.manual_seed(0)
        x = torch.ones(4, 16, requires_grad=True)
        block(x).square().sum().backward()
        gradients.append((x.grad, block.linear.weight.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])


def test_names_and_tensors_of_a_network_stay():
    plain, checkpointed = autoencoder(), autoencoder()
    recompute_activations(checkpointed)
    assert plain.state_dict().keys() == checkpointed.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(of_images(plain), of_images(copy.deepcopy(checkpointed)))
