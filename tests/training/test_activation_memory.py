"""Predicted memory of activations against closed forms and against what autograd stores."""

import pytest
import torch
from torch import nn

from smtool.networks.sd_vae import SDVAE
from smtool.training.activation_memory import gib, peak_bytes, training_bytes

CONFIG = SDVAE(downsample=4, latent_channels=2, channels=(16, 16, 32), norm_groups=4, blocks_per_level=1)


def loss(network: nn.Module, device: str = "meta") -> torch.Tensor:
    return network.decode(network.encode(torch.zeros(2, 3, 64, 64, device=device)).mean).square().mean()


def test_a_chain_of_matrices_stores_one_output_each():
    """Four layers of width n store four outputs of b x n floats; a gradient or two of this size are alive beside them."""
    chain = nn.Sequential(*(nn.Linear(64, 64, bias=False, device="meta") for _ in range(4)))
    x = torch.empty(32, 64, device="meta")
    one = 32 * 64 * 4
    assert 4 * one <= peak_bytes(lambda: chain(x).sum().backward()) <= 7 * one


def test_without_gradients_two_neighbouring_tensors_are_alive():
    chain = nn.Sequential(*(nn.Linear(64, 64, bias=False, device="meta") for _ in range(8)))
    x = torch.empty(32, 64, device="meta")
    with torch.no_grad():
        assert 2 * 32 * 64 * 4 <= peak_bytes(lambda: chain(x)) <= 4 * 32 * 64 * 4


def test_the_prediction_for_an_autoencoder_is_near_what_autograd_stores():
    """The stored tensors are counted on a CPU; temporary tensors of the backward pass come on top."""
    network, stored = CONFIG.build(), {}
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(network, "cpu")
    counted = sum(size for place, size in stored.items() if place not in own)
    del value
    predicted = training_bytes(CONFIG.build, loss, recomputed=False)
    assert counted * 0.9 < predicted < counted * 1.4


def test_recomputed_activations_are_predicted_to_need_less_than_half():
    plain, checkpoint = (training_bytes(CONFIG.build, loss, recomputed=way) for way in (False, True))
    assert checkpoint < plain / 2
    assert plain / 4 < training_bytes(CONFIG.build, loss, recomputed=False, precision="bf16") < plain / 2      # fused kernels


@pytest.mark.parametrize(("size", "said"), [(2**30 * 2.1, "2.1 GiB"), (2**20 * 130, "130 MiB")])
def test_sizes_have_units(size, said):
    assert gib(size) == said


def test_attention_is_counted_as_a_fused_kernel():
    """4096 tokens of width 8: their square would be 64 MiB, the tokens are 128 KiB."""
    tokens = torch.empty(1, 1, 4096, 8, device="meta", requires_grad=True)
    found = peak_bytes(lambda: nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).sum().backward())
    assert 2**17 <= found <= 2**20
