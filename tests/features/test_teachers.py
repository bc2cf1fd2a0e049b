import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.models import squeezenet1_1

from smtool.errors import RecipeError, WeightsError
from smtool.features.teachers import load_teacher

VIT = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights under the names of the published files."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(VIT, num_classes=0).state_dict(), folder / f"{VIT}.safetensors")
        save_file(timm.create_model("resnet10t", num_classes=0).state_dict(), folder / "resnet10t.safetensors")
        torch.save(squeezenet1_1(weights=None).state_dict(), folder / "squeezenet1_1_torchvision_fp16.pth")
    return folder


def _images(side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("grid", [(14, 14), (8, 8), (4, 6)])
def test_a_vision_transformer_has_one_feature_per_token_whatever_the_grid(weights, grid):
    teacher = load_teacher(f"timm:{VIT}", token_grid=grid, weights_dir=weights)
    assert (teacher.dim, teacher.grid) == (192, grid)
    assert teacher(_images()).shape == (2, 192, *grid)


def test_features_are_timms_patch_tokens_after_its_own_normalization(weights):
    teacher = load_teacher(f"timm:{VIT}", token_grid=(14, 14), weights_dir=weights)
    overlay = {"file": str(weights / f"{VIT}.safetensors")}
    plain = timm.create_model(VIT, num_classes=0, pretrained=True, pretrained_cfg_overlay=overlay)
    config = timm.data.resolve_model_data_config(plain)
    images = _images(224)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        tokens = plain.eval().forward_features((images / 255.0 - mean) / std)[:, 1:]
    expected = tokens.transpose(1, 2).reshape(2, 192, 14, 14)
    torch.testing.assert_close(teacher(images), expected, rtol=1e-4, atol=1e-4)


def test_a_convolutional_model_gives_its_last_map(weights):
    teacher = load_teacher("timm:resnet10t", token_grid=(8, 8), weights_dir=weights)
    assert teacher(_images()).shape == (2, teacher.dim, *teacher.grid)


@pytest.mark.parametrize("cells", [4, 7, 8, 13, 16])
def test_squeezenet_gets_images_of_the_size_that_gives_one_feature_per_token(weights, cells):
    teacher = load_teacher("squeezenet", token_grid=(cells, cells), weights_dir=weights)
    assert (teacher.dim, teacher.grid) == (512, (cells, cells))


def test_a_teacher_is_frozen_and_in_no_state_dict(weights):
    teacher = load_teacher("squeezenet", token_grid=(4, 4), weights_dir=weights)
    assert not list(teacher.parameters())
    assert not teacher.state_dict()
    assert not teacher(_images()).requires_grad


def test_in_bf16_the_network_alone_is_in_autocast(weights):
    """Features stay float32 and near those of float32, which autocast around the call does not change."""
    teacher = load_teacher(f"timm:{VIT}", token_grid=(4, 4), weights_dir=weights)
    images = _images()
    with torch.autocast("cpu", torch.bfloat16):
        full = teacher(images)
    assert torch.equal(full, teacher(images))
    teacher.precision = "bf16"
    found = teacher(images)
    x = (images / 255.0 - teacher.mean) / teacher.std
    x = F.interpolate(x, size=teacher.size, mode="bicubic", align_corners=False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        tokens = teacher.network.forward_features(x)[:, 1:]
    assert found.dtype == torch.float32
    assert torch.equal(found, tokens.float().mT.unflatten(2, (4, 4)))
    assert 0.999 < F.cosine_similarity(found, full, dim=1).min() < 1
    assert teacher.unnormalized(images / 127.5 - 1).dtype == torch.float32


def test_unknown_teachers_and_missing_weights_are_one_line_errors(weights, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="no teacher is called 'dinov3'"):
        load_teacher("dinov3", token_grid=(4, 4), weights_dir=weights)
    with pytest.raises(RecipeError, match="timm has no model"):
        load_teacher("timm:vit_tinny_patch16_224", token_grid=(4, 4), weights_dir=weights)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)        # the variable is read once, on import
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="could not be loaded"):
        load_teacher("timm:vit_small_patch16_224", token_grid=(4, 4), weights_dir=tmp_path)


def test_only_uint8_images_are_taken(weights):
    with pytest.raises(ValueError, match="uint8 images"):
        load_teacher("squeezenet", token_grid=(4, 4), weights_dir=weights)(torch.zeros(1, 3, 32, 32))
