"""VA-VAE's penalty, restated with loops in numpy on features that torchvision and timm compute."""

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F
from torchvision.models import squeezenet1_1

from smtool.errors import RecipeError, WeightsError
from smtool.features.frozen import frozen_digests
from smtool.networks.posterior import Posterior
from smtool.recipe import TrainAE, load
from smtool.regularizers import VAVAE, Encoding, Shapes
from smtool.training.terms import AdaptiveWeight, Term, weighted_sum

SHAPES = Shapes((2, 3, 16, 24), (2, 5, 2, 3))
VIT = "vit_small_patch14_dinov2.lvd142m"


def _images(channels: int = 3) -> torch.Tensor:
    levels = torch.randint(0, 256, (2, channels, 16, 24), generator=torch.Generator().manual_seed(1))
    return levels / 127.5 - 1


def _built(weights, **keys):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = VAVAE(**keys).build(SHAPES, weights)
    method.projection.double()
    return method


def _latents(height: int = 2, width: int = 3) -> torch.Tensor:
    shape = (2, 5, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)


def _encoding(images, latents) -> Encoding:
    return Encoding(images, Posterior(latents, torch.zeros_like(latents)), latents)


def _restated(latents, projection, features, m1: float, m2: float) -> float:
    """latents (B, C, h, w), projection (D, C), features (B, D, h, w)."""
    def cosine(a, b):
        return a @ b / np.sqrt((a @ a) * (b @ b))

    marginal, distances = [], []
    for z, f in zip(latents, features, strict=True):
        cells = [projection @ z[:, i, j] for i in range(z.shape[1]) for j in range(z.shape[2])]
        targets = [f[:, i, j] for i in range(f.shape[1]) for j in range(f.shape[2])]
        marginal += [max(0.0, 1 - m1 - cosine(a, b)) for a, b in zip(cells, targets, strict=True)]
        for a, fa in zip(cells, targets, strict=True):
            distances += [max(0.0, abs(cosine(a, b) - cosine(fa, fb)) - m2) for b, fb in zip(cells, targets, strict=True)]
    return float(np.mean(marginal) + np.mean(distances))


def _squeezenet(weights, x: torch.Tensor) -> np.ndarray:
    """Features of torchvision's network for its input x."""
    network = squeezenet1_1(weights=None)
    state = torch.load(weights / "squeezenet1_1_torchvision_fp16.pth")
    network.load_state_dict({name: value.float() for name, value in state.items()})
    with torch.no_grad():
        return network.eval().features(x).double().numpy()


def _imagenet(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((images + 1) / 2 - mean) / std


@pytest.mark.parametrize(("m1", "m2"), [(0.5, 0.25), (0.0, 0.0)])
def test_penalty_and_gradients_are_those_of_loops_over_cells(weights, numeric_gradient, m1, m2):
    method = _built(weights, teacher="squeezenet", cosine_margin=m1, distance_margin=m2)
    images, latents = _images(), _latents()
    features = _squeezenet(weights, F.interpolate(_imagenet(images), size=(48, 64), mode="bicubic"))      # has 2x3 features
    projection = method.projection.weight.detach().numpy()[:, :, 0, 0]
    found = method.penalty(_encoding(images, latents), None)
    found.backward()
    z = latents.detach().numpy()
    assert found.item() == pytest.approx(_restated(z, projection, features, m1, m2), rel=1e-6)      # float32 features
    wanted = numeric_gradient(lambda x: _restated(x, projection, features, m1, m2), z)
    np.testing.assert_allclose(latents.grad.numpy(), wanted, atol=2e-7)
    row = projection[7:8].copy()      # one row of the projection; all 512 take long

    def with_row(values):
        changed = projection.copy()
        changed[7] = values[0]
        return _restated(z, changed, features, m1, m2)

    np.testing.assert_allclose(method.projection.weight.grad[7:8, :, 0, 0].numpy(), numeric_gradient(with_row, row), atol=2e-7)


def test_as_released_images_are_not_normalized_and_are_resized_bilinearly(weights):
    method = _built(weights, teacher="squeezenet", preprocessing="released")
    images, latents = _images(), _latents()
    features = _squeezenet(weights, F.interpolate(images, size=(48, 64), mode="bilinear"))
    projection = method.projection.weight.detach().numpy()[:, :, 0, 0]
    expected = _restated(latents.detach().numpy(), projection, features, 0.5, 0.25)
    assert method.penalty(_encoding(images, latents), None).item() == pytest.approx(expected, rel=1e-6)
    proper = _built(weights, teacher="squeezenet").penalty(_encoding(images, latents), None)
    assert abs(proper.item() - expected) > 1e-4


def test_a_vision_transformer_has_one_feature_per_cell_at_any_latent_grid(weights):
    """Patch tokens of timm at 14 px per cell, without the class token."""
    method = _built(weights, teacher="dinov2-s")
    images, latents = _images(), _latents()
    overlay = {"file": str(weights / f"{VIT}.safetensors")}
    plain = timm.create_model(VIT, pretrained=True, num_classes=0, img_size=(28, 42), pretrained_cfg_overlay=overlay).eval()
    with torch.no_grad():
        tokens = plain.forward_features(F.interpolate(_imagenet(images), size=(28, 42), mode="bicubic"))[:, 1:]
    features = tokens.mT.reshape(2, 384, 2, 3).double().numpy()
    projection = method.projection.weight.detach().numpy()[:, :, 0, 0]
    expected = _restated(latents.detach().numpy(), projection, features, 0.5, 0.25)
    assert method.penalty(_encoding(images, latents), None).item() == pytest.approx(expected, rel=1e-5)


def test_features_are_resampled_where_latents_have_another_grid(weights):
    """EQ-VAE encodes smaller images; a constant image has features that resampling does not change at the inner cells."""
    method = _built(weights, teacher="squeezenet")
    images = _images()
    latents = _latents(4, 6)
    assert method.penalty(_encoding(images, latents), None).isfinite()
    features = method.teacher(torch.round((images + 1) * 127.5).to(torch.uint8))
    resized = F.interpolate(features, size=(4, 6), mode="bilinear", antialias=True).double().numpy()
    projection = method.projection.weight.detach().numpy()[:, :, 0, 0]
    expected = _restated(latents.detach().numpy(), projection, resized, 0.5, 0.25)
    assert method.penalty(_encoding(images, latents), None).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_images_of_other_channels_are_shown_as_rgb(weights, channels):
    for preprocessing in ("teacher", "released"):
        method = _built(weights, teacher="squeezenet", preprocessing=preprocessing)
        assert method.penalty(_encoding(_images(channels), _latents()), None).isfinite()


def test_latents_that_are_the_features_have_no_penalty_even_without_margins(weights):
    """With the identity as projection."""
    shapes = Shapes((2, 3, 16, 24), (2, 512, 2, 3))
    method = VAVAE(teacher="squeezenet", cosine_margin=0, distance_margin=0).build(shapes, weights)
    images = _images()
    features = method.teacher(torch.round((images + 1) * 127.5).to(torch.uint8))
    with torch.no_grad():
        method.projection.weight.copy_(torch.eye(512)[:, :, None, None])
    assert method.penalty(_encoding(images, 3 * features), None).item() < 1e-5      # scale does not matter


def test_the_projection_is_trained_and_saved_and_the_teacher_is_neither(weights):
    method = _built(weights, teacher="squeezenet")
    assert {name for name, _ in method.named_parameters()} == set(method.state_dict()) == {"projection.weight"}
    assert list(frozen_digests(method)) == ["squeezenet"]
    assert VAVAE(teacher="squeezenet").learned_from() == ("squeezenet",)


def test_the_weight_is_the_released_ratio_at_the_encoder(weights):
    """w * |grad nll| / (|grad L| + 1e-4), at most w * 1e8, with nll = L1 + LPIPS."""
    adaptive = _built(weights, teacher="squeezenet").adaptive_weight
    assert adaptive == AdaptiveWeight("encoder", offset=1e-4, cap=1e8)
    layer = torch.tensor([0.3, 0.4], dtype=torch.float64, requires_grad=True)
    terms = [Term("l1", 2 * layer.sum(), reconstruction=True), Term("va_vae", (1e-4 * layer[0]), 0.1, adaptive)]
    factor = weighted_sum(terms, {"encoder": layer}).values["va_vae_factor"]
    assert factor.item() == pytest.approx(2 * np.sqrt(2) / (1e-4 + 1e-4), rel=1e-6)


def test_wrong_input_is_refused_with_the_key(weights, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match=r"regularizers\.va_vae\.teacher: no teacher is called 'dinov3'"):
        VAVAE(teacher="dinov3").build(SHAPES, weights)
    with pytest.raises(RecipeError, match=r"regularizers\.va_vae\.cosine_margin: must be less than 2"):
        load("va-vae", TrainAE, ["regularizers.va_vae.cosine_margin=2"])
    with pytest.raises(RecipeError, match=r"regularizers\.va_vae: has no effect with train = 'decoder'"):
        load("va-vae", TrainAE, ["train=decoder"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="could not be loaded"):
        VAVAE(teacher="dinov2-b").build(SHAPES, tmp_path)
