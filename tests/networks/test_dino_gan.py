"""The DINO discriminator: its head restated in numpy, its trunk against timm's blocks, counts, and what it refuses."""

import math

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from smtool.errors import RecipeError, WeightsError
from smtool.features.frozen import frozen_digests
from smtool.features.trunk import load_trunk, supply_trunk
from smtool.networks.dino_gan import DinoGAN, TokenHead
from smtool.networks.shapes_only import shapes_only
from smtool.randomness import initializing
from smtool.tasks.adversary import DinoAdversary

VIT = "vit_tiny_patch16_224"


def images(side: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_published_discriminator_has_the_published_number_of_parameters():
    with shapes_only():
        network = DinoAdversary().build()
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_386_245


def matrix(layer) -> np.ndarray:
    """The layer's kernel (out, in, k) over its largest singular value as the layer's vectors give it."""
    kernel = layer.parametrizations.weight.original.detach().numpy()
    u, v = (getattr(layer.parametrizations.weight[0], name).numpy() for name in ("_u", "_v"))
    return kernel / (u @ kernel.reshape(len(kernel), -1) @ v)


def convolved(x: np.ndarray, layer) -> np.ndarray:
    """Circular convolution of (C, T), by loops over taps and tokens."""
    kernel, bias = matrix(layer), layer.bias.detach().numpy()
    taps, tokens = kernel.shape[2], x.shape[1]
    out = np.zeros((len(kernel), tokens))
    for place in range(tokens):
        for tap in range(taps):
            out[:, place] += kernel[:, :, tap] @ x[:, (place + tap - taps // 2) % tokens]
    return out + bias[:, None]


def normalized(x: np.ndarray, block) -> np.ndarray:
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    x = x * block.scale.detach().numpy()[:, None] + block.shift.detach().numpy()[:, None]
    return np.where(x > 0, x, 0.2 * x)


def test_a_head_is_the_published_formula():
    with initializing(0, "head"):
        head = TokenHead(6).double().eval()
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter)
    tokens = torch.randn(2, 6, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = head(tokens)
    for image, logits in zip(tokens.numpy(), found.detach().numpy(), strict=True):
        x = normalized(convolved(image, head.enter.conv), head.enter)
        x = (x + normalized(convolved(x, head.mix.conv), head.mix)) / math.sqrt(2)
        np.testing.assert_allclose(logits, convolved(x, head.leave), rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(lambda x: head(x), (tokens[:1, :, :5].clone().requires_grad_(),))


def test_an_image_has_the_same_logits_in_any_batch_and_training_finds_the_spectral_norm():
    with initializing(0, "head"):
        head = TokenHead(6).eval()
    tokens = torch.randn(3, 6, 11, generator=torch.Generator().manual_seed(1))
    assert_close(head(tokens)[1:2], head(tokens[1:2]))
    head.train()
    for _ in range(200):
        head(tokens)
    largest = torch.linalg.matrix_norm(head.mix.conv.weight.flatten(1), ord=2)
    assert_close(largest, torch.tensor(1.0), rtol=1e-3, atol=0)


def test_the_trunk_gives_the_patch_tokens_of_its_blocks_and_gradients_reach_the_images(weights):
    trunk = load_trunk(VIT, weights)
    overlay = {"file": str(weights / f"{VIT}.safetensors")}
    plain = timm.create_model(VIT, num_classes=0, pretrained=True, pretrained_cfg_overlay=overlay).eval()
    seen = {}
    for number, block in enumerate(plain.blocks):
        block.register_forward_hook(lambda _, given, out, number=number: seen.__setitem__(number, out[:, 1:].mT))
    x = F.interpolate(images(), size=(224, 224), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        plain.forward_features(((x + 1) / 2 - mean) / std)
    given = images().requires_grad_()
    found = trunk(given)
    expected = torch.stack([seen[11], *(seen[number] for number in (2, 5, 8, 11))])
    assert_close(found, expected, rtol=1e-3, atol=1e-3)      # zero biases of keys change no attention
    found.square().mean().backward()
    assert given.grad.abs().sum() > 0 and not any(p.requires_grad for p in trunk.network.parameters())
    trunk.precision = "bf16"
    lowered = trunk(images())
    assert lowered.dtype == torch.float32 and not torch.equal(lowered, found)
    assert F.cosine_similarity(lowered.flatten(), found.flatten(), dim=0) > 0.999


def test_heads_alone_are_trained_and_stored(weights):
    network = DinoGAN(trunk=VIT, channels=192).build()
    with pytest.raises(ValueError, match="of this discriminator was not loaded"):
        network(images())
    before = set(network.state_dict())
    supply_trunk(network, weights)
    assert set(network.state_dict()) == before and all(name.startswith("heads.") for name in before)
    assert list(frozen_digests(network)) == [f"timm:{VIT}"]
    assert network(images()).shape == (2, 5 * 196)


def test_what_cannot_work_is_refused(weights, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"discriminator\.channels: .*tokens of width 192, but the recipe states 384"):
        supply_trunk(DinoGAN(trunk=VIT).build(), weights)
    with pytest.raises(RecipeError, match="timm has no model called 'vit_tinny'"):
        supply_trunk(DinoGAN(trunk="vit_tinny").build(), weights)
    with pytest.raises(RecipeError, match=r"discriminator\.trunk: resnet10t is no plain vision transformer"):
        supply_trunk(DinoGAN(trunk="resnet10t").build(), weights)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"discriminator\.trunk: the weights of timm's vit_small.* could not") as at:
        supply_trunk(DinoGAN().build(), tmp_path)
    assert "vit_small_patch8_224.dino.safetensors" in at.value.hint
