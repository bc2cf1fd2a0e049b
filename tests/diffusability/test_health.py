import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smtool.diffusability.inputs.accumulators import LatentMoments
from smtool.diffusability.inputs.subjects import Subject
from smtool.diffusability.sections import health
from smtool.diffusability.sections.health import fp16_of
from smtool.diffusability.sections.parts import Reason
from smtool.networks.activations import LargestActivation
from smtool.networks.posterior import Posterior
from smtool.spectrum import idct2
from smtool.tokenizers import Tokenizer, open_tokenizer
from smtool.tokenizers.functions import FunctionTokenizer


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """Fields whose amplitude falls as 1 / f, 128 px."""
    axis = torch.arange(128)
    radius = (axis.square()[:, None] + axis.square()).sqrt()
    radius[0, 0] = math.inf
    return idct2(3 * torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)) / radius)


def report_of(codec: Tokenizer, images: Tensor) -> health.Health:
    posterior, subject = codec.encode(images), Subject("it", codec)
    return health.measure(subject, images, LatentMoments.of(posterior), subject.reconstruct(posterior.mode()))


class Small(nn.Module):
    """Average pooling by 4 to 4 channels, a 1x1 convolution each way, nearest upsampling; `gain` inflates one layer."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 3, 1, bias=False)
        with torch.no_grad():
            self.encoder.weight.copy_(torch.eye(4, 3)[..., None, None])
            self.decoder.weight.copy_(gain * torch.eye(3, 4)[..., None, None])
        self.seen: list[tuple[str, int]] = []

    def encode(self, x: Tensor) -> Posterior:
        self.seen.append(("encode", len(x)))
        mean = self.encoder(nn.functional.avg_pool2d(x, 4))
        return Posterior(mean, torch.full_like(mean, math.log(0.01)))

    def decode(self, z: Tensor) -> Tensor:
        self.seen.append(("decode", len(z)))
        return nn.functional.interpolate(self.decoder(z), scale_factor=4)

    def codec(self, *, can_decode: bool = True) -> Tokenizer:
        return FunctionTokenizer(
            self.encode, self.decode if can_decode else None, network=self, label="small", source="", architecture="", digest="",
            downsample=4, latent_channels=4,
        )


@pytest.mark.parametrize(("control", "reconstruction", "whole_cell", "latent"), [
    ("crop", 0.003, 0.0, 0.008),
    ("bilinear", 0.016, 0.0, 0.06),
    ("nearest", 0.14, 0.0, 0.06),
    ("space-to-depth", 0.0, 0.0, 0.55),
])
def test_the_controls_have_the_documented_shift_errors(photographs, control, reconstruction, whole_cell, latent):
    """The numbers (spectrum.md#health) are for photographs; these fields are smoother, so the tolerance is wide."""
    found = report_of(open_tokenizer(f"control:{control}"), photographs).shift
    for name, expected in (("reconstruction", reconstruction), ("whole_cell", whole_cell), ("latent", latent)):
        assert getattr(found, name) == pytest.approx(expected, rel=1.0, abs=0.01), name


def test_grid_artefacts_are_reconstruction_minus_input(photographs):
    nearest, exact = (report_of(open_tokenizer(f"control:{name}"), photographs).grid for name in ("nearest", "space-to-depth"))
    assert nearest.period == 8
    assert nearest.phase.reconstruction == pytest.approx(1)
    assert nearest.phase.excess == pytest.approx(1 - nearest.phase.input)
    assert exact.phase.excess == pytest.approx(0, abs=1e-6)
    assert exact.template.excess == pytest.approx(0, abs=1e-6)


def test_a_dead_channel_is_listed_with_the_noise_that_hides_it_in_samples(photographs):
    found = report_of(Small().codec(), photographs)
    assert [channel.dead for channel in found.channels] == [False, False, False, True]
    pooled = photographs.numpy().reshape(4, 3, 32, 4, 32, 4).mean((3, 5))
    np.testing.assert_allclose([channel.std for channel in found.channels][:3], pooled.std((0, 2, 3), ddof=1), rtol=1e-4)
    np.testing.assert_allclose([channel.posterior_std for channel in found.channels], 0.1, rtol=1e-5)
    eigenvalues = np.linalg.eigvalsh(np.cov(pooled.transpose(1, 0, 2, 3).reshape(3, -1)))
    shares = eigenvalues / eigenvalues.sum()
    assert found.effective_rank.entropy == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-4)


def test_capacity_is_listed_per_distortion_and_through_the_posteriors_own_noise(photographs):
    found = report_of(Small().codec(), photographs)
    assert [entry.distortion for entry in found.capacity] == [0.1, 0.01, 0.001]
    bits = [entry.bits_per_image for entry in found.capacity]
    assert bits == sorted(bits)
    for entry in (*found.capacity, found.channel_capacity):
        assert sum(entry.bits_per_band) == pytest.approx(entry.bits_per_image, rel=1e-4)
        assert entry.bits_per_channel[3] == pytest.approx(0, abs=1e-6)
    assert "adds no noise" in report_of(open_tokenizer("control:crop"), photographs).channel_capacity.reason


def test_the_largest_activation_is_found_with_its_layer_and_overflows_above_65504(photographs):
    quiet = report_of(Small().codec(), photographs).fp16
    assert not quiet.overflows
    loud = report_of(Small(gain=1e6).codec(), photographs).fp16
    assert (loud.layer, loud.overflows) == ("decoder", True)
    assert loud.largest_activation == pytest.approx(1e6 * nn.functional.avg_pool2d(photographs, 4).abs().max().item(), rel=0.1)
    assert loud.largest_latent == pytest.approx(nn.functional.avg_pool2d(photographs, 4).abs().max().item(), rel=1e-4)


def test_an_activation_that_is_not_finite_overflows(photographs):
    found = report_of(Small(gain=math.inf).codec(), photographs).fp16
    assert (found.largest_activation, found.layer, found.overflows) == (None, "decoder", True)


def test_the_shift_errors_cost_two_encodings_and_three_decodings_and_leave_no_hook(photographs):
    network = Small()
    posterior = network.encode(photographs)
    base = network.decode(posterior.mode())
    network.seen.clear()
    health.measure(Subject("it", network.codec()), photographs, LatentMoments.of(posterior), base)
    assert {name: sum(count for kind, count in network.seen if kind == name) for name in ("encode", "decode")} == {
        "encode": 2 * len(photographs), "decode": 3 * len(photographs),
    }
    assert not any(module._forward_hooks for module in network.modules())


def test_moments_of_parts_join_to_those_of_all(photographs):
    posterior = Small().encode(photographs)
    parts = [LatentMoments.of(Posterior(posterior.mean[i:i + 2], posterior.logvar[i:i + 2])) for i in (0, 2)]
    joined, whole = parts[0] + parts[1], LatentMoments.of(posterior)
    torch.testing.assert_close(joined.channels.covariance, whole.channels.covariance)
    torch.testing.assert_close(joined.bands.covariance, whole.bands.covariance)
    torch.testing.assert_close(joined.noise, whole.noise)
    assert joined.largest == whole.largest


def test_encoders_without_decoder_have_only_the_third_shift_error_and_few_positions_give_no_rank(photographs):
    found = report_of(Small().codec(can_decode=False), photographs)
    assert found.shift.reconstruction is None and found.shift.whole_cell is None
    assert found.shift.latent == pytest.approx(report_of(Small().codec(), photographs).shift.latent)
    assert found.grid == Reason(reason="it has no decoder")
    assert found.fp16.layer == "encoder"
    few = report_of(open_tokenizer("control:stretch"), photographs[:1, :, :64, :64])
    assert "1920 positions" in few.effective_rank.reason
    assert "2 images" in few.capacity.reason
    assert few.fp16.reason == "no layer could be watched"


@pytest.mark.parametrize(("latent", "factor", "overflows"), [(10.0, 10.0, False), (7e4, 10.0, True), (10.0, 7e4, True)])
def test_latents_overflow_as_activations_do(latent, factor, overflows):
    assert fp16_of(latent, LargestActivation({"0": torch.tensor(factor)})).overflows == overflows


def test_errors_at_edges_equal_a_double_loop_and_wrong_padding_is_a_warning():
    from numpy import array, median
    from skimage import data

    picture = torch.tensor(data.astronaut() / 127.5 - 1.0).permute(2, 0, 1).float()
    images = torch.stack([picture[:, y : y + 96, x : x + 96] for y in (0, 200, 400) for x in (0, 130, 260, 400)])
    found = {}
    for padding in ("zeros", "reflect"):
        codec = open_tokenizer(f"specimen:plain,padding={padding}")
        found[padding] = report_of(codec, images).edges
        decoded = codec.decode(codec.encode(images).mean)
        error = ((decoded - images) ** 2).mean(1).double().numpy()
        ratios = []
        for one in error:
            ring = [one[i, j] for i in range(96) for j in range(96) if i in (0, 95) or j in (0, 95)]
            inner = [one[i, j] for i in range(8, 88) for j in range(8, 88)]
            ratios.append(np.mean(ring) / np.mean(inner))
        assert found[padding].ratio == pytest.approx(float(np.sort(array(ratios))[(len(ratios) - 1) // 2]), rel=1e-6)
        assert found[padding].ratio == pytest.approx(float(median(ratios)), rel=0.3)
    assert found["zeros"].ratio < health.EDGE_RATIO < found["reflect"].ratio
    tones = {padding: health.edges_finding(edges).tone for padding, edges in found.items()}
    assert tones == {"zeros": "good", "reflect": "warn"}


def test_images_without_an_interior_and_without_error_have_a_reason():
    codec = open_tokenizer("specimen:plain")      # cells of 4 pixels
    encoder = Small().codec(can_decode=False)
    assert "no interior" in health._edges(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), codec).reason
    assert "no error" in health._edges(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64), codec).reason
    assert "no decoder" in health._edges(torch.zeros(1, 3, 64, 64), None, encoder).reason
