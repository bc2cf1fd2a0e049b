import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import nn

from smtool.errors import RecipeError, WeightsError
from smtool.features.load import load_extractor
from smtool.features.protocol import PROTOCOLS
from smtool.metrics.frechet import FeatureStats, frechet_distance
from smtool.storage import file_digest


@pytest.fixture(scope="module")
def crops():
    """48 crops of photographs, uint8 (48, 3, 64, 64)."""
    places = [(y, x) for y in range(0, 384, 64) for x in range(0, 512, 64)]
    photograph = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)
    return torch.stack([photograph[:, y : y + 64, x : x + 64] for y, x in places])


def blurred(images, factor):
    small = F.avg_pool2d(images.float(), factor)
    return F.interpolate(small, scale_factor=factor, mode="bilinear").round().to(torch.uint8)


def distance(extractor, x, y):
    return frechet_distance(FeatureStats.of(extractor(x)), FeatureStats.of(extractor(y)))


def test_random_features_are_the_same_on_every_machine_and_touch_no_global_generator():
    before = torch.get_rng_state()
    extractor = load_extractor("random")
    assert extractor.digest.startswith(DIGEST_OF_RANDOM)
    assert extractor.score == "fd_random"
    assert extractor.resize == "none"
    assert torch.equal(torch.get_rng_state(), before)


DIGEST_OF_RANDOM = "98af70d1c2fa"      # a change here makes all earlier fd_random incomparable


def test_random_features_equal_a_plain_convolution_stack(crops):
    extractor = load_extractor("random")
    weights = list(extractor.network.state_dict().values())[::2]
    x, expected = (crops[:2].double() - 127.5) / 64, []
    for weight in weights:
        x = F.conv2d(x, weight.double(), padding=1).clamp_min(0)
        expected.append(x.mean((2, 3)))
        x = F.avg_pool2d(x, 2)
    torch.testing.assert_close(extractor(crops[:2]).double(), torch.cat(expected, 1), rtol=1e-4, atol=1e-5)


def test_fd_random_is_zero_for_equal_sets_and_grows_with_blur_and_noise(crops):
    extractor = load_extractor("random")
    noise = torch.randn(crops.shape, generator=torch.Generator().manual_seed(0))
    noisy = [(crops + sigma * noise).round().clamp(0, 255).to(torch.uint8) for sigma in (5, 20)]
    assert distance(extractor, crops, crops) < 1e-9
    assert 0 < distance(extractor, crops, blurred(crops, 2)) < distance(extractor, crops, blurred(crops, 8))
    assert 0 < distance(extractor, crops, noisy[0]) < distance(extractor, crops, noisy[1])


def test_squeezenet_features_are_torchvisions_averaged_last_map(crops, squeezenet_file):
    from torchvision.models import squeezenet1_1

    extractor = load_extractor("squeezenet", weights_dir=squeezenet_file.parent)
    network = squeezenet1_1(weights=None).eval()
    network.load_state_dict({name: value.float() for name, value in torch.load(squeezenet_file, weights_only=True).items()})
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = F.interpolate(crops[:2].float(), (224, 224), mode="bicubic", antialias=True).clamp(0, 255) / 255
    with torch.no_grad():
        expected = network.features((x - mean) / std).mean((2, 3))
    torch.testing.assert_close(extractor(crops[:2]), expected, rtol=1e-4, atol=1e-4)
    assert (extractor.dim, extractor.score, extractor.resize) == (512, "fd_squeezenet", "bicubic-antialias to 224")
    assert extractor.digest == file_digest(squeezenet_file)


def test_the_protocol_decides_the_resize(crops, squeezenet_file):
    folder = squeezenet_file.parent
    clean, paper = (load_extractor("squeezenet", weights_dir=folder, protocol=PROTOCOLS[name]) for name in ("clean", "paper"))
    assert paper.resize == "bilinear to 224"
    assert (clean(crops[:2]) - paper(crops[:2])).abs().max() > 1e-3


def test_resnet56_takes_the_published_file_layout(crops, tmp_path, monkeypatch):
    from smtool.features import weights
    from smtool.features.cifar_resnet import CifarResNet

    network = CifarResNet().eval()
    assert sum(value.numel() for value in network.parameters()) == 853_018      # 0.85 M, He et al. 2015, table 6
    (tmp_path / "cifar10_resnet").mkdir()
    torch.save({"state_dict": {f"module.{name}": value for name, value in network.state_dict().items()}}, tmp_path / "state")
    name = f"resnet56-{file_digest(tmp_path / 'state')[:8]}.th"
    (tmp_path / "state").rename(tmp_path / "cifar10_resnet" / name)
    monkeypatch.setitem(weights.WEIGHTS, "resnet56", weights.Weights("ResNet-56", (f"cifar10_resnet/{name}",), 4, "https://example.org"))
    extractor = load_extractor("resnet56", weights_dir=tmp_path)
    assert extractor(crops[:3]).shape == (3, 64)
    assert extractor.score == "fd_resnet56"


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_a_torchscript_file_is_an_extractor_at_native_size(crops, tmp_path):
    class Means(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    torch.jit.script(Means()).save(tmp_path / "means.pt")
    extractor = load_extractor(str(tmp_path / "means.pt"))
    torch.testing.assert_close(extractor(crops), crops.float().mean((2, 3)))
    assert (extractor.score, extractor.dim, extractor.digest) == ("fd_means", 3, file_digest(tmp_path / "means.pt"))
    (tmp_path / "broken.pt").write_bytes(b"not TorchScript")
    with pytest.raises(WeightsError, match=r"broken\.pt is not a TorchScript extractor"):
        load_extractor(str(tmp_path / "broken.pt"))
    with pytest.raises(WeightsError, match="no such TorchScript file"):
        load_extractor(str(tmp_path / "absent.pt"))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(RecipeError, match="no feature extractor called 'squeeznet'") as caught:
        load_extractor("squeeznet")
    assert "squeezenet" in str(caught.value) and "timm:MODEL" in str(caught.value)


def test_float_images_are_refused():
    with pytest.raises(ValueError, match=r"uint8 images .* found torch\.float32"):
        load_extractor("random")(torch.zeros(1, 3, 64, 64))


def test_extractors_compute_in_float32_under_autocast(crops):
    extractor = load_extractor("random")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = extractor(crops[:2])
    assert torch.equal(inside, extractor(crops[:2]))
