from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from smtool.spectrum import (
    PHYSICAL,
    REFERENCE,
    block_low_pass,
    esm_loss,
    fitted_low_pass,
    idct2,
    matched_gain,
    radial_power,
    reference_divergence,
    ring_frequency,
    spectral_distribution,
)

SIZES = [
    ((256, 256), (32, 32)),
    ((256, 256), (16, 16)),
    ((64, 64), (8, 8)),
    ((256, 256), (4, 4)),
    ((96, 160), (12, 20)),
    ((100, 60), (9, 7)),
]


def power_law(exponent: float, *shape: int, seed: int = 0) -> Tensor:
    """Fields whose DCT amplitude falls as (distance from DC)^-exponent, unit variance."""
    i, j = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in shape[-2:]), indexing="ij")
    noise = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x = idct2(noise / (i**2 + j**2).clamp(min=1) ** (exponent / 2))
    return x / x.std()


def released_loss(images: Tensor, latents: Tensor, delta: float) -> float:
    """The released procedure (released-code.md#esm), step by step."""
    height, width = latents.shape[-2:]
    if height != 32:
        taps = torch.exp(-(torch.arange(-3, 4, dtype=images.dtype) ** 2) / (2 * 1.2**2))
        kernel = taps[:, None] * taps / (taps[:, None] * taps).sum()
        images = F.conv2d(images, kernel.expand(3, 1, 7, 7), padding=3, groups=3)
    images = F.interpolate(images, size=(height, width), mode="bicubic", align_corners=False, antialias=False)
    shares = []
    for x, exponent in ((images, delta), (latents, 0.0)):
        centred = (x - x.mean((-2, -1), keepdim=True)).numpy()
        power = np.maximum((scipy.fft.dctn(centred, axes=(-2, -1), norm="ortho") ** 2).mean(1), 1e-8)
        power[:, 0, 0] = 0
        total, count = np.zeros((len(x), 16)), np.zeros(16)
        for i in range(height):
            for j in range(width):
                ring = min(int(16 * np.sqrt(i**2 + j**2) / np.sqrt((height - 1) ** 2 + (width - 1) ** 2)), 15)
                total[:, ring] += power[:, i, j]
                count[ring] += 1
        compressed = np.log(1 + total / (count + 1e-8) * np.arange(1, 17) ** exponent + 1e-8)
        shares.append(compressed / (compressed.sum(1, keepdims=True) + 1e-8))
    target, found = shares
    return float((target * (np.log(target + 1e-8) - np.log(found + 1e-8))).sum(1).mean())


@pytest.mark.parametrize(("source", "size"), SIZES)
@pytest.mark.parametrize("delta", [0.0, 0.6, 1.0])
def test_reference_loss_equals_the_released_recipe(source: tuple[int, int], size: tuple[int, int], delta: float) -> None:
    images, latents = power_law(1.0, 2, 3, *source) / 2, power_law(0.5, 2, 4, *size, seed=1)
    expected = released_loss(images, latents, delta)
    assert expected > 1e-4
    assert esm_loss(images, latents, delta).item() == pytest.approx(expected, rel=1e-10)
    assert esm_loss(images.float(), latents.float(), delta).item() == pytest.approx(expected, rel=2e-5, abs=1e-6)


def test_a_latent_that_is_the_downsampled_image_has_no_loss_at_delta_zero() -> None:
    images = power_law(1.0, 2, 3, 256, 256)
    latents = F.interpolate(images, size=(32, 32), mode="bicubic", align_corners=False)
    assert esm_loss(images, latents, delta=0.0).item() == pytest.approx(0, abs=1e-14)
    assert esm_loss(images, latents, delta=1.0).item() > 0.01


def test_the_released_loss_depends_on_gain_and_the_matched_one_does_not() -> None:
    """A larger gain reduces the loss of steep latents (released-code.md#gain-in-esm)."""
    images, latents = power_law(1.0, 8, 3, 128, 128), power_law(1.0, 8, 4, 16, 16, seed=1)
    raw = [esm_loss(images, gain * latents).item() for gain in (0.3, 1.0, 3.0, 10.0)]
    assert raw[0] > 1.5 * raw[1] > 3 * raw[2] > 4 * raw[3]
    matched = replace(REFERENCE.loss, gain="match")
    values = [esm_loss(images, gain * latents, estimator=matched).item() for gain in (0.3, 1.0, 3.0, 10.0)]
    assert values == pytest.approx([values[0]] * 4, rel=1e-5)


def test_matched_gain_equates_total_power_over_the_set() -> None:
    image, latent = torch.rand(5, 16, dtype=torch.float64) + 0.1, torch.rand(5, 16, dtype=torch.float64) + 0.1
    count = ring_frequency(16, 16, REFERENCE.loss)[1]
    gain = matched_gain(image, latent, count, delta=0.7)
    target = image * torch.arange(1, 17) ** 0.7
    assert_close((gain * latent * count).sum(), (target * count).sum())


def test_divergence_is_taken_image_by_image() -> None:
    images, latents = power_law(1.0, 3, 3, 64, 64), power_law(0.3, 3, 4, 16, 16, seed=1)
    image_power, latent_power = radial_power(images, REFERENCE.loss, (16, 16)), radial_power(latents, REFERENCE.loss)
    divergence = reference_divergence(image_power, latent_power, REFERENCE.loss, delta=1.0)
    alone = torch.stack([esm_loss(images[i : i + 1], latents[i : i + 1]) for i in range(3)])
    assert_close(divergence, alone, rtol=1e-10, atol=0)
    assert (divergence > 0).all()


def test_fractions_sum_to_one_with_and_without_the_log() -> None:
    power = torch.rand(4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    compressed = spectral_distribution(power, REFERENCE.curve, delta=0.8)
    assert_close(compressed.sum(1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-7)
    plain = spectral_distribution(power, replace(REFERENCE.curve, log="none"), delta=0.8, gain=3.0)
    flattened = power * torch.arange(1, 17) ** 0.8
    assert_close(plain, flattened / flattened.sum(1, keepdim=True), rtol=0, atol=1e-8)
    assert not torch.allclose(plain, compressed, atol=1e-3)


def test_gradient_reaches_the_latents_only() -> None:
    images, latents = power_law(1.0, 2, 3, 64, 64).requires_grad_(), power_law(0.5, 2, 4, 8, 8, seed=1).requires_grad_()
    esm_loss(images, latents).backward()
    assert images.grad is None
    assert latents.grad.abs().sum() > 0


@pytest.mark.parametrize("gain", ["raw", "match"])
def test_gradient_is_right(gain: str) -> None:
    images, latents = power_law(1.0, 2, 3, 32, 24), power_law(0.5, 2, 2, 4, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: esm_loss(images, z, 1.0, replace(REFERENCE.loss, gain=gain)), latents)


def test_descending_the_loss_brings_the_spectrum_to_its_target() -> None:
    images, latents = power_law(1.0, 4, 3, 64, 64), power_law(0.0, 4, 4, 16, 16, seed=1).requires_grad_()
    before = esm_loss(images, latents).item()
    optimizer = torch.optim.Adam([latents], lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        esm_loss(images, latents).backward()
        optimizer.step()
    assert esm_loss(images, latents).item() < 0.05 * before


def test_autocast_does_not_coarsen_the_loss() -> None:
    images, latents = power_law(1.0, 2, 3, 64, 64), power_law(0.5, 2, 4, 16, 16, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = esm_loss(images.float(), latents.float())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(esm_loss(images, latents).item(), rel=2e-5)


def test_constants_do_not_follow_the_default_device() -> None:
    """Constants are cached: on another default device they would break all later calls. No other test uses these sizes."""
    images, latents, small = power_law(1.0, 2, 3, 72, 88), power_law(0.5, 2, 4, 9, 11), power_law(0.5, 2, 4, 5, 5)
    large, cutoffs = power_law(1.0, 1, 1, 96, 120), torch.tensor([0, 8])
    with torch.device("meta"):
        results = [
            esm_loss(images, latents),
            radial_power(images, PHYSICAL, (9, 11)),
            radial_power(large, PHYSICAL),
            ring_frequency(9, 11, PHYSICAL)[0],
            fitted_low_pass(small, cutoffs),
            block_low_pass(large, 20, block=24),
        ]
    assert all(result.device.type == "cpu" and result.isfinite().all() for result in results)


def test_what_cannot_be_compared_is_refused() -> None:
    images, latents = power_law(1.0, 2, 3, 32, 32), power_law(0.5, 3, 4, 8, 8)
    with pytest.raises(ValueError, match="2 images cannot be compared with 3 latents"):
        esm_loss(images, latents)
    with pytest.raises(ValueError, match="REFERENCE only"):
        esm_loss(images, latents[:2], estimator=PHYSICAL)
