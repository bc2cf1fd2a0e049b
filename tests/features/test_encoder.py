"""Frozen encoders of an RAE: timm's tokens without the last affine, any grid, missing or other weights."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.testing import assert_close

from smtool.errors import RecipeError, WeightsError
from smtool.features.encoder import MODELS, describe_encoder, load_encoder, supply_encoder
from smtool.networks.rae import RAE

VIT = "vit_tiny_patch16_224"
REGISTERS = "vit_small_patch14_reg4_dinov2.lvd142m"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights under the names of the published files."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(VIT, num_classes=0)
        torch.nn.init.normal_(network.norm.weight)
        torch.nn.init.normal_(network.norm.bias)
        save_file(network.state_dict(), folder / f"{VIT}.safetensors")
        save_file(timm.create_model(REGISTERS, num_classes=0, depth=1).state_dict(), folder / f"{REGISTERS}.safetensors")
    return folder


def images(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(("size", "grid"), [((28, 28), (14, 14)), ((32, 48), (4, 6))])
def test_features_are_timms_patch_tokens_without_the_affine_of_the_last_norm(weights, size, grid):
    """A network that timm builds for this size, its last layer norm restated."""
    encoder = load_encoder(f"timm:{VIT}", weights)
    overlay = {"file": str(weights / f"{VIT}.safetensors")}
    sides = tuple(16 * cells for cells in grid)
    plain = timm.create_model(VIT, num_classes=0, pretrained=True, pretrained_cfg_overlay=overlay, img_size=sides).eval()
    config = timm.data.resolve_model_data_config(plain)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    x = F.interpolate((images(*size) + 1) / 2, size=sides, mode="bicubic", align_corners=False, antialias=False)
    plain.norm = torch.nn.Identity()
    with torch.no_grad():
        tokens = plain.forward_features((x - mean) / std)[:, 1:]
    tokens = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    assert_close(encoder(images(*size), grid), tokens.mT.reshape(2, 192, *grid), rtol=1e-3, atol=1e-3)


def test_bf16_is_for_training_alone(weights):
    """Which runs under autocast; validation and scores do not."""
    encoder = load_encoder(f"timm:{VIT}", weights)
    exact = encoder(images(32, 32), (4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(images(32, 32), (4, 4)), exact)
        encoder.precision = "bf16"
        lowered = encoder(images(32, 32), (4, 4))
    assert lowered.dtype == torch.float32 and 1e-4 < (lowered - exact).abs().mean() < 0.05
    assert torch.equal(encoder(images(32, 32), (4, 4)), exact)


def test_registers_and_the_class_token_are_dropped(weights, monkeypatch):
    shallow = timm.create_model
    monkeypatch.setattr("timm.create_model", lambda *args, **keys: shallow(*args, **{**keys, "depth": 1}))
    encoder = load_encoder("dinov2-s-reg", weights)
    assert encoder.network.num_prefix_tokens == 5
    assert encoder(images(64, 64), (4, 4)).shape == (2, 384, 4, 4)
    assert (encoder.dim, encoder.side(16)) == (384, 224)


def test_the_digest_does_not_depend_on_the_file_nor_on_the_size_of_images(weights, tmp_path):
    tensors = timm.create_model(VIT, num_classes=0, pretrained=True,
                                pretrained_cfg_overlay={"file": str(weights / f"{VIT}.safetensors")}).state_dict()
    torch.save(tensors, tmp_path / f"{VIT}.pth")
    one, other = load_encoder(f"timm:{VIT}", weights), load_encoder(f"timm:{VIT}", tmp_path)
    one(images(16, 16), (2, 2))
    assert one.digest == other.digest != load_encoder("random").digest


@pytest.mark.parametrize("name", MODELS)
def test_widths_and_patches_of_short_names_are_timms(name):
    found, by_timm = describe_encoder(name), describe_encoder(f"timm:{MODELS[name][0]}")
    assert found == by_timm


def test_squeezenet_has_one_feature_per_cell_whatever_the_grid(squeezenet_file):
    encoder = load_encoder("squeezenet", squeezenet_file.parent)
    for grid in ((4, 4), (3, 7)):
        found = encoder(images(32, 32), grid)
        assert found.shape == (2, 512, *grid)
        assert_close(found.mean(1), torch.zeros(2, *grid), atol=1e-5, rtol=0)


def test_wrong_names_are_recipe_errors():
    with pytest.raises(RecipeError, match="no encoder is called 'dinov3'"):
        describe_encoder("dinov3")
    with pytest.raises(RecipeError, match="timm has no model called 'vit_tinny"):
        describe_encoder("timm:vit_tinny_patch16_224")
    with pytest.raises(RecipeError, match="timm:resnet10t is no plain vision transformer"):
        describe_encoder("timm:resnet10t")


def test_absent_and_other_weights_are_one_line_errors_that_name_the_file(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)        # the variable is read once, on import
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    sizes = {"size": "custom", "depth": 1, "width": 8, "heads": 2, "hidden": 8}
    network = RAE(encoder=f"timm:{VIT}", latent_channels=192, **sizes).build()
    with pytest.raises(WeightsError, match=f"model.encoder: an RAE needs its frozen encoder timm:{VIT}: .*could not be") as found:
        supply_encoder(network, tmp_path)
    assert f"{VIT}.safetensors" in (found.value.hint or "")
    supply_encoder(network, weights)
    pinned = network.config.model_copy(update={"encoder_digest": "0" * 64}).build()
    with pytest.raises(WeightsError, match=r"have the digest .*, but 000000000000 is needed"):
        supply_encoder(pinned, weights)
    narrow = network.config.model_copy(update={"latent_channels": 64}).build()
    with pytest.raises(WeightsError, match="has 192 features, but latent_channels is 64"):
        supply_encoder(narrow, weights)
