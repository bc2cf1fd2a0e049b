"""UAE's band loss and its perturbed latents, restated with scipy's DCT on features that timm and torchvision compute."""

import numpy as np
import pytest
import scipy.fft
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torchvision.models import squeezenet1_1

from smtool.errors import RecipeError, WeightsError
from smtool.features.frozen import frozen_digests
from smtool.networks.posterior import Posterior
from smtool.randomness import streams
from smtool.recipe import TrainAE, load
from smtool.regularizers import UAE, Encoding, Pair, Shapes
from smtool.training.terms import AdaptiveWeight

SHAPES = Shapes((2, 3, 16, 24), (2, 5, 2, 3))
VIT = "vit_small_patch14_dinov2.lvd142m"
ORDER = [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (1, 2)]


def _images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 16, 24), generator=torch.Generator().manual_seed(1)) / 127.5 - 1


def _imagenet(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((images + 1) / 2 - mean) / std


def _built(weights, **keys):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = UAE(**keys).build(SHAPES, weights)
    method.projection.double()
    return method


def _latents() -> torch.Tensor:
    return torch.randn(2, 5, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)


def _penalty(method, images, latents) -> torch.Tensor:
    return method.penalty(Encoding(images, Posterior(latents - 1, torch.zeros_like(latents)), latents), None)


def _restated(latents, weight, bias, features, count: int) -> float:
    """weight (D, C), bias (D,), features (B, D, h, w): mean over images, dimensions and the first `count` zig-zag cells."""
    targets = (features - features.mean(1, keepdims=True)) / np.sqrt(features.var(1, keepdims=True) + 1e-5)
    squares = []
    for z, f in zip(latents, targets, strict=True):
        for row, offset, target in zip(weight, bias, f, strict=True):
            projected = sum(w * channel for w, channel in zip(row, z, strict=True)) + offset
            difference = scipy.fft.dctn(projected, norm="ortho") - scipy.fft.dctn(target, norm="ortho")
            squares += [difference[cell] ** 2 for cell in ORDER[:count]]
    return float(np.mean(squares))


@pytest.mark.parametrize(("band", "count"), [(0.34, 2), (0.5, 3), (1.0, 6)])
def test_the_band_loss_and_its_gradients_are_those_of_loops(weights, numeric_gradient, band, count):
    method = _built(weights, teacher="squeezenet", band=band)
    network = squeezenet1_1(weights=None)
    state = torch.load(weights / "squeezenet1_1_torchvision_fp16.pth")
    network.load_state_dict({name: value.float() for name, value in state.items()})
    images, latents = _images(), _latents()
    with torch.no_grad():
        features = network.eval().features(F.interpolate(_imagenet(images), size=(48, 64), mode="bicubic")).double().numpy()
    weight, bias = method.projection.weight.detach().numpy()[:, :, 0, 0], method.projection.bias.detach().numpy()
    found = _penalty(method, images, latents)
    found.backward()
    z = latents.detach().numpy()
    assert found.item() == pytest.approx(_restated(z, weight, bias, features, count), rel=1e-5)      # float32 features

    def of_the_first(part):
        return _restated(np.concatenate([part, z[1:]]), weight, bias, features, count)

    wanted = numeric_gradient(of_the_first, z[:1], 1e-4)
    np.testing.assert_allclose(latents.grad[:1].numpy(), wanted, atol=1e-6)


def test_a_transformers_tokens_lose_the_affine_part_of_the_last_norm(weights, tmp_path):
    state = load_file(weights / f"{VIT}.safetensors")
    state["norm.weight"], state["norm.bias"] = torch.linspace(0.1, 3, 384), torch.linspace(-1, 1, 384)
    save_file(state, tmp_path / f"{VIT}.safetensors")
    method = _built(tmp_path, teacher="dinov2-s", band=1.0)
    overlay = {"file": str(tmp_path / f"{VIT}.safetensors")}
    plain = timm.create_model(VIT, pretrained=True, num_classes=0, img_size=(28, 42), pretrained_cfg_overlay=overlay).eval()
    plain.norm = torch.nn.LayerNorm(384, eps=plain.norm.eps, elementwise_affine=False)
    images, latents = _images(), _latents()
    with torch.no_grad():
        tokens = plain.forward_features(F.interpolate(_imagenet(images), size=(28, 42), mode="bicubic"))[:, 1:]
    features = tokens.mT.reshape(2, 384, 2, 3).double().numpy()
    weight, bias = method.projection.weight.detach().numpy()[:, :, 0, 0], method.projection.bias.detach().numpy()
    expected = _restated(latents.detach().numpy(), weight, bias, features, 6)
    assert _penalty(method, images, latents).item() == pytest.approx(expected, rel=1e-4)
    norm = method.teacher.network.norm
    assert (norm.weight == 1).all() and (norm.bias == 0).all()


def test_a_noisy_low_passed_pair_and_a_clean_one_are_decoded(weights):
    method = _built(weights, teacher="squeezenet")
    draws = [method.draw(streams(0, step, "autoencoder", batch=2), SHAPES) for step in range(20)]
    pair = Pair(_images(), _latents(), 0.5)
    for draw in (next(d for d in draws if d.kept is None), next(d for d in draws if d.kept is not None)):
        noisy, clean = method.before_decode([pair], draw)
        expected = pair.latents.detach().numpy() + draw.std.double().numpy()[:, None, None, None] * draw.noise.double().numpy()
        if draw.kept is not None:
            for image, kept in zip(expected, (6 * draw.kept).round().int().tolist(), strict=True):
                coefficients = scipy.fft.dctn(image, axes=(-2, -1), norm="ortho")
                for cell in ORDER[kept:]:
                    coefficients[(slice(None), *cell)] = 0
                image[:] = scipy.fft.idctn(coefficients, axes=(-2, -1), norm="ortho")
        np.testing.assert_allclose(noisy.latents.detach().numpy(), expected, atol=1e-12)
        assert clean.latents is pair.latents and (noisy.weight, clean.weight) == (0.5, 5.0)
        assert noisy.images is clean.images is pair.images
    (found,) = method.before_decode([pair], method.draw(streams(0, 1, "discriminator", batch=2), SHAPES))
    assert found is pair


def test_counts_and_noise_levels_are_uniform_per_image_and_half_the_steps_are_low_passed(weights):
    shapes = Shapes((8, 3, 64, 64), (8, 5, 16, 16))
    method = UAE(teacher="squeezenet").build(shapes, weights)
    counts, levels, filtered = [], [], 0
    for step in range(400):
        whole = streams(0, step, "autoencoder", batch=8)
        draw = method.draw(whole, shapes)
        half = method.draw(whole.at(4, 8), Shapes((4, 3, 64, 64), (4, 5, 16, 16)))
        assert torch.equal(half.std, draw.std[4:]) and (half.kept is None) == (draw.kept is None)
        levels += draw.std.tolist()
        if draw.kept is not None:
            filtered += 1
            counts += (256 * draw.kept).round().int().tolist()
    assert 150 < filtered < 250      # 200 expected, sd 10
    assert min(counts) <= 34 and max(counts) >= 254 and 32 <= min(counts) <= max(counts) <= 256
    assert abs(np.mean(counts) - 144) < 6 and abs(np.mean(levels) - 0.4) < 0.02      # sd 1.6, 0.004


def test_the_projection_is_trained_and_saved_and_the_frozen_network_is_neither(weights):
    method = _built(weights, teacher="squeezenet")
    assert {name for name, _ in method.named_parameters()} == set(method.state_dict()) == {"projection.weight", "projection.bias"}
    assert list(frozen_digests(method)) == ["squeezenet"]
    assert method.adaptive_weight == AdaptiveWeight("encoder", offset=1e-4, cap=1e8)


@pytest.mark.parametrize(("change", "said"), [
    (["regularizers.dsm={}"], r"uae\.low_pass: must be 0 with dsm"),
    (["regularizers.latent_noise={kind='rae',level=0.8}"], r"latent_noise: cannot be used with uae, which needs latents without"),
    (["regularizers.uae.noise=0", "regularizers.uae.low_pass=0"], r"uae\.clean: must be 0 without noise and low_pass"),
    (["regularizers.uae.band=0"], r"uae\.band: must be greater than 0"),
    (["regularizers.uae.fewest=1.5"], r"uae\.fewest"),
])
def test_wrong_input_is_refused_with_its_key(change, said):
    with pytest.raises(RecipeError, match=said):
        load("uae", TrainAE, change)


def test_a_frozen_network_that_is_not_there_is_one_sentence(weights, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"regularizers\.uae\.teacher: no teacher is called 'clip'"):
        UAE(teacher="clip").build(SHAPES, weights)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="could not be loaded"):
        UAE().build(SHAPES, tmp_path)


def test_it_combines_with_esm_and_without_low_pass_with_dsm():
    tables = load("uae", TrainAE, ["regularizers.dsm={}", "regularizers.esm={}", "regularizers.uae.low_pass=0"]).tables
    assert list(tables.regularizers.present) == ["esm", "uae", "dsm"]
