"""timm models and SqueezeNet as encoders: their features, on the grid given by the side of the images."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close
from torchvision.models import squeezenet1_1

from smtool.errors import CheckpointError, RecipeError, WeightsError
from smtool.tokenizers import open_tokenizer

VIT, DINO, RESNET = "vit_tiny_patch16_224", "vit_small_patch14_dinov2.lvd142m", "resnet10t"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights with the names of the published ones, saved from timm."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in (VIT, DINO, RESNET):
            save_file(timm.create_model(name, num_classes=0).state_dict(), folder / f"{name}.safetensors")
        torch.save(squeezenet1_1(weights=None).state_dict(), folder / "squeezenet1_1_torchvision_fp16.pth")
    return folder


def images(side: int) -> torch.Tensor:
    return 2 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) - 1


def test_latents_are_timms_patch_tokens(weights):
    tokenizer = open_tokenizer(f"timm:{VIT}", image_size=224, weights_dir=weights)
    overlay = {"file": str(weights / f"{VIT}.safetensors")}
    plain = timm.create_model(VIT, num_classes=0, pretrained=True, pretrained_cfg_overlay=overlay).eval()
    x = images(224)
    with torch.no_grad():
        tokens = plain.forward_features(x)[:, 1:]      # this model normalizes images to [-1, 1]
        assert_close(tokenizer.encode(x).mean, tokens.transpose(1, 2).reshape(1, 192, 14, 14), rtol=1e-4, atol=1e-4)
    assert (tokenizer.downsample, tokenizer.latent_channels) == (16, 192)
    assert (tokenizer.can_decode, tokenizer.deterministic) == (False, True)
    with pytest.raises(ValueError, match="only encodes"):
        tokenizer.decode(torch.zeros(1, 192, 14, 14))


@pytest.mark.parametrize(
    ("name", "side", "cell", "words"),
    [(VIT, 64, 16, "encode only"), (DINO, 56, 14, "encode only"), (DINO, 64, 16, "resized to 56x56"), (RESNET, 64, 32, "f32")],
)
def test_the_grid_follows_the_images(name, side, cell, words, weights):
    tokenizer = open_tokenizer(f"timm:{name}", image_size=side, weights_dir=weights)
    assert (tokenizer.downsample, *tokenizer.image_size) == (cell, side, side)
    assert words in tokenizer.architecture
    mean = tokenizer.encode(images(side)).mean
    assert mean.shape == (1, tokenizer.latent_channels, side // cell, side // cell)
    with pytest.raises(ValueError, match=f"opened for images of {side}x{side}"):
        tokenizer.encode(images(2 * side))


@pytest.mark.parametrize(
    ("name", "size", "cell", "words"),
    [(VIT, (64, 96), 16, "encode only"), (DINO, (64, 96), 16, "resized to 56x84"), (RESNET, (64, 96), 32, "f32")],
)
def test_images_may_be_rectangles_and_gray(name, size, cell, words, weights):
    color = open_tokenizer(f"timm:{name}", image_size=size, weights_dir=weights)
    gray = open_tokenizer(f"timm:{name}", image_size=size, image_channels=1, weights_dir=weights)
    assert words in gray.architecture and gray.downsample == cell
    x = 2 * torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1)) - 1
    mean = gray.encode(x).mean
    assert mean.shape == (2, gray.latent_channels, size[0] // cell, size[1] // cell)
    assert_close(mean, color.encode(x.repeat(1, 3, 1, 1)).mean)
    with pytest.raises(ValueError, match=r"opened for images of 64x96, not 96x64: open it with image_size=\[96, 64\]"):
        gray.encode(x.mT)


def test_without_images_it_is_opened_for_256(weights):
    assert open_tokenizer(f"timm:{RESNET}", weights_dir=weights).image_size.stored == 256
    tokenizer = open_tokenizer("squeezenet", weights_dir=weights)
    assert (tokenizer.image_size.stored, tokenizer.downsample, tokenizer.latent_channels) == (256, 16, 512)


def test_hooks_on_its_layers_are_called(weights):
    tokenizer = open_tokenizer(f"timm:{RESNET}", image_size=64, weights_dir=weights)
    seen = []
    tokenizer.network.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert_close(tokenizer.encode(images(64)).mean, seen[0])


def test_impossible_sizes_and_names_are_errors(weights, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="smaller than one latent cell, 16x16"):
        open_tokenizer(f"timm:{VIT}", image_size=8, weights_dir=weights)
    with pytest.raises(CheckpointError, match="as 3x3 cells: the side is not a multiple of its stride"):
        open_tokenizer(f"timm:{RESNET}", image_size=72, weights_dir=weights)
    with pytest.raises(CheckpointError, match=r"no latent cell of at least 14 pixels, .* divides 32 and 50"):
        open_tokenizer(f"timm:{DINO}", image_size=[32, 50], weights_dir=weights)
    with pytest.raises(RecipeError, match="Did you mean"):
        open_tokenizer("timm:vit_tiny_patch16_225", weights_dir=weights)
    monkeypatch.setattr("timm.create_model", _offline)
    with pytest.raises(WeightsError, match="could not be loaded from timm's cache or the network"):
        open_tokenizer(f"timm:{VIT}", weights_dir=tmp_path)


def _offline(name, *, pretrained=False, real=timm.create_model, **options):
    if pretrained:
        raise OSError("no network")
    return real(name, **options)
