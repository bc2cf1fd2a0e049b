import warnings
from pathlib import Path

import lpips
import pytest
import skimage.data
import torch
from torch import nn

from smtool.errors import WeightsError
from smtool.features.perceptual import Perceptual
from smtool.randomness import generator


@pytest.fixture(scope="module")
def photographs():
    pixels = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).float() / 127.5 - 1
    return torch.stack([pixels[:, 40:104, 180:244], pixels[:, 200:264, 100:164]])


@pytest.fixture
def distance(squeezenet_file):
    return Perceptual(net="squeeze").build(squeezenet_file.parent)


def by_hand(features, heads, x, y):
    """LPIPS from torchvision's network, its published taps and the package's heads, layer by layer (Zhang et al. 2018, Eq. 1)."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    a, b, total, layer = (x - shift) / scale, (y - shift) / scale, 0.0, 0
    for number, module in enumerate(features):
        a, b = module(a), module(b)
        if number in (1, 4, 7, 9, 10, 11, 12):
            unit_a, unit_b = (value / (value.square().sum(1, keepdim=True).sqrt() + 1e-10) for value in (a, b))
            weight = heads[f"lin{layer}.model.1.weight"]
            total = total + ((unit_a - unit_b) ** 2 * weight.view(1, -1, 1, 1)).sum(1).mean((1, 2))
            layer += 1
    return total


def test_squeeze_distance_equals_the_formula_on_torchvisions_network(distance, squeezenet_file, photographs):
    from torchvision.models import squeezenet1_1

    network = squeezenet1_1(weights=None).eval()
    stored = torch.load(squeezenet_file, weights_only=True)
    assert stored["features.0.weight"].dtype == torch.float16      # a float16 file is accepted and converted to float32
    network.load_state_dict({name: value.float() for name, value in stored.items()})
    heads = torch.load(Path(lpips.__file__).parent / "weights/v0.1/squeeze.pth", map_location="cpu", weights_only=True)
    y = photographs + 0.1 * torch.randn(photographs.shape, generator=generator("noise"))
    with torch.no_grad():
        expected = by_hand(network.features, heads, photographs, y)
    torch.testing.assert_close(distance(photographs, y), expected, rtol=1e-5, atol=1e-6)
    assert distance(photographs, y).shape == (2,)
    assert distance(photographs, photographs).tolist() == [0.0, 0.0]


def test_gradients_reach_both_images_and_no_weight(distance, photographs):
    x, y = photographs.clone().requires_grad_(), (0.5 * photographs).requires_grad_()
    distance(x, y).sum().backward()
    assert x.grad.abs().sum() > 0 and y.grad.abs().sum() > 0
    assert all(not weight.requires_grad and weight.grad is None for weight in distance.network.parameters())


def test_the_network_stays_out_of_checkpoints_and_optimizers_and_in_eval_mode(distance):
    task = nn.Module()
    task.perceptual, task.layer = distance, nn.Linear(2, 2)
    assert set(task.state_dict()) == {"layer.weight", "layer.bias"}
    assert len(list(task.parameters())) == 2
    task.load_state_dict({name: value.clone() for name, value in task.state_dict().items()})
    task.train()
    assert not any(module.training for module in distance.network.modules())


def test_it_computes_in_float32_under_autocast_and_after_a_cast(distance, photographs):
    expected = distance(photographs, -photographs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = distance(photographs, -photographs)
    assert torch.equal(inside, expected)
    assert torch.equal(distance.to(torch.bfloat16)(photographs, -photographs), expected)


def test_it_moves_with_the_module_that_holds_it(distance):
    task = nn.Module()
    task.perceptual = distance
    task.to("meta")
    assert {weight.device.type for weight in distance.network.parameters()} == {"meta"}


@pytest.mark.parametrize("net", ["vgg", "alex", "squeeze"])
def test_smallest_input_is_the_smallest_that_lpips_accepts(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    side = Perceptual(net=net).smallest_input
    with torch.no_grad():
        assert torch.isfinite(network(torch.zeros(1, 3, side, side), torch.ones(1, 3, side, side))).all()
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 3, side - 1, side - 1), torch.ones(1, 3, side - 1, side - 1))


def test_images_that_are_too_small_or_of_five_channels_are_refused(distance):
    with pytest.raises(ValueError, match="lpips_squeeze needs images of at least 17 px"):
        distance(torch.zeros(1, 3, 16, 32), torch.zeros(1, 3, 16, 32))
    with pytest.raises(ValueError, match=r"\(1, 5, 32, 32\)"):
        distance(torch.zeros(1, 5, 32, 32), torch.zeros(1, 5, 32, 32))


def test_building_it_prints_nothing_warns_of_nothing_and_leaves_the_global_generator_alone(squeezenet_file, capfd):
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Perceptual(net="squeeze").build(squeezenet_file.parent)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_are_absent_or_of_another_network_are_an_error(tmp_path):
    with pytest.raises(WeightsError, match=r"AlexNet .* is needed for LPIPS with the alex network"):
        Perceptual(net="alex").build(tmp_path)
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "squeezenet1_1_torchvision_fp16.pth")
    with pytest.raises(WeightsError, match="does not hold"):
        Perceptual(net="squeeze").build(tmp_path)
    (tmp_path / "squeezenet1_1_torchvision_fp16.pth").write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match="not a readable weight file"):
        Perceptual(net="squeeze").build(tmp_path)


def test_the_trunk_in_bf16_is_close_under_autocast_and_the_score_stays_the_same(distance, photographs):
    """The gradient is rough: rounding the images alone to bf16 moves it by 12 to 36 %, the trunk in bf16 by 17 to 38 %
    (docs/how-to/gpu.md)."""
    x = (photographs + 0.1 * torch.randn(photographs.shape, generator=generator("noise"))).requires_grad_()
    expected = distance(x, photographs)
    (wanted,) = torch.autograd.grad(expected.sum(), x)
    distance.precision = "bf16"
    assert torch.equal(distance(x, photographs), expected)      # a score is computed without autocast
    with torch.autocast("cpu", torch.bfloat16):
        found = distance(x, photographs)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0)
    assert (gradient - wanted).norm() < 0.5 * wanted.norm()
    assert all(weight.dtype == torch.float32 for weight in distance.network.parameters())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="at least 17 px"):
        distance(x[..., :16, :16], photographs[..., :16, :16])
