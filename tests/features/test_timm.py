import urllib.error

import huggingface_hub.constants
import pytest
import timm
import torch
from torch import nn

from smtool.errors import RecipeError, WeightsError
from smtool.features import timm as timm_features
from smtool.features.load import load_extractor
from smtool.randomness import generator
from smtool.storage import file_digest, write_tensors

TINY = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(TINY).eval()


@pytest.fixture
def folder(network, tmp_path):
    write_tensors(tmp_path / f"{TINY}.safetensors", network.state_dict(), {})
    return tmp_path


def test_a_timm_name_takes_its_file_from_the_weights_folder(network, folder):
    extractor = load_extractor(f"timm:{TINY}", weights_dir=folder)
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8, generator=generator("images"))
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((images / 255 - mean) / std), pre_logits=True)
    torch.testing.assert_close(extractor(images), expected, rtol=1e-4, atol=1e-5)
    assert extractor.score == f"fd_timm_{TINY}"
    assert extractor.digest == file_digest(folder / f"{TINY}.safetensors")
    assert extractor.resize == "bicubic-antialias to 160"


def test_dinov2_files_of_meta_are_converted_and_give_the_class_token(tmp_path, monkeypatch):
    """With ViT-S for speed; the real extractor differs only in width and depth."""
    small = "vit_small_patch14_dinov2.lvd142m"
    monkeypatch.setattr(timm_features, "_DINOV2", small)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        native = timm.create_model(small, num_classes=0, img_size=518).eval()
        nn.init.normal_(native.pos_embed, std=0.02)
    upstream = native.state_dict()
    upstream["mask_token"] = torch.zeros(1, 384)      # Meta's files hold one; timm's networks do not
    torch.save(upstream, tmp_path / "dinov2_vitl14_pretrain.pth")
    extractor = load_extractor("dinov2", weights_dir=tmp_path)
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=generator("images"))
    features = extractor(images)
    assert features.shape == (1, 384)
    torch.testing.assert_close(features, extractor.network.forward_features((images - extractor.mean) / extractor.std)[:, 0])
    assert (extractor.score, extractor.resize) == ("fd_dinov2", "bicubic-antialias to 224")


def test_an_unknown_model_suggests_the_nearest():
    with pytest.raises(RecipeError, match="no model called 'resnet1800'") as caught:
        load_extractor("timm:resnet1800")
    assert "resnet18" in str(caught.value)


def test_missing_weights_are_an_error(monkeypatch, capsys):
    def offline(*args, **kwargs):
        if kwargs.get("pretrained"):
            raise OSError("no network in tests")
        return nn.Linear(1000, 1000)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=f"{TINY} could not be loaded .* no network in tests") as caught:
        load_extractor(f"timm:{TINY}")
    assert f"{TINY}.safetensors" in str(caught.value)
    assert "4 MB, downloaded unless" in capsys.readouterr().err


@pytest.mark.parametrize("answers", [False, True])
def test_without_a_network_only_the_cache_of_the_hub_is_used(monkeypatch, answers):
    """The hub's client would retry for a minute. An error response of the server shows that there is a network."""

    def urlopen(request, timeout):
        raise urllib.error.HTTPError("", 403, "Forbidden", {}, None) if answers else OSError("no network")

    seen = []

    def create_model(model, pretrained=False, **options):
        seen.append(huggingface_hub.constants.HF_HUB_OFFLINE)
        if pretrained:
            raise RuntimeError("not in the cache")
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(WeightsError, match="not in the cache"):
        timm_features.create("resnet10t", None)
    assert seen[-1] is not answers
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False
