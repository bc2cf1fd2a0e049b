from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor
from torch.testing import assert_close

from smtool.spectrum import PHYSICAL, REFERENCE, radial_power, ring_frequency, spectrum_of
from smtool.spectrum.psd import ring_means

PUBLISHED_COUNTS = {
    32: [8, 22, 32, 42, 58, 68, 78, 86, 106, 118, 128, 118, 74, 46, 28, 12],
    16: [3, 5, 7, 13, 13, 15, 23, 19, 23, 31, 31, 31, 19, 11, 9, 3],
    8: [1, 2, 1, 4, 3, 4, 5, 2, 8, 7, 6, 9, 4, 5, 2, 1],
}


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def cell_power(x: Tensor) -> np.ndarray:
    return (scipy.fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho") ** 2).mean(1)


def reference_by_hand(x: Tensor, *, keep_dc: bool) -> np.ndarray:
    power = np.maximum(cell_power(x), 1e-8)
    height, width = power.shape[1:]
    largest = np.sqrt((height - 1) ** 2 + (width - 1) ** 2)
    total, count = np.zeros((len(x), 16)), np.zeros(16)
    for i in range(height):
        for j in range(width):
            ring = min(int(16 * np.sqrt(i**2 + j**2) / largest + 1e-9), 15)
            count[ring] += 1
            if keep_dc or (i, j) != (0, 0):
                total[:, ring] += power[:, i, j]
    return total / (count + 1e-8)


def physical_by_hand(x: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rings of spectrum.md#power-spectrum in cycles per pixel: (ring means, ring frequencies, cells)."""
    power = cell_power(x)
    height, width = power.shape[1:]
    half_cycle = 0.5 / min(height, width)
    edges = [half_cycle * k for k in (0, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5)]
    while edges[-1] < 0.5:
        edges.append(max(edges[-1] * 2 ** (1 / 6), edges[-1] + half_cycle))
    if 0.5 - edges[-2] < half_cycle / 2:  # a very narrow last ring is merged with its neighbour
        del edges[-2]
    rings: dict[int, list[tuple[float, np.ndarray]]] = {}
    for u in range(height):
        for v in range(width):
            r = np.hypot(u / (2 * height), v / (2 * width))
            if (u, v) != (0, 0) and r <= 0.5:
                rings.setdefault(int(np.searchsorted(edges, r, side="right")), []).append((r, power[:, u, v]))
    cells = [rings[key] for key in sorted(rings)]
    means = np.stack([np.mean([p for _, p in ring], axis=0) for ring in cells], axis=1)
    frequency = np.array([np.exp(np.mean([np.log(r) for r, _ in ring])) for ring in cells])
    return means, frequency, np.array([len(ring) for ring in cells])


@pytest.mark.parametrize("side", PUBLISHED_COUNTS)
def test_reference_bins_hold_the_published_numbers_of_cells(side: int) -> None:
    frequency, count = ring_frequency(side, side, REFERENCE.loss)
    assert count.tolist() == PUBLISHED_COUNTS[side]
    assert frequency.tolist() == list(range(1, 17))


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (8, 8), (4, 4), (12, 20), (17, 17), (72, 60), (1, 5)])
@pytest.mark.parametrize("keep_dc", [False, True])
def test_reference_equals_a_double_loop(size: tuple[int, int], keep_dc: bool) -> None:
    x = noise(2, 3, *size)
    estimator = REFERENCE.curve if keep_dc else REFERENCE.loss
    np.testing.assert_allclose(radial_power(x, estimator).numpy(), reference_by_hand(x, keep_dc=keep_dc), rtol=1e-10)
    single = radial_power(x.float(), estimator)
    np.testing.assert_allclose(single.numpy(), reference_by_hand(x, keep_dc=keep_dc), rtol=1e-4)


@pytest.mark.parametrize("side", [32, 57, 113, 125])
def test_reference_bins_round_like_the_released_code(side: int) -> None:
    """For cells on the edge of a bin, the order of the released float32 square root, quotient and product decides."""
    index = torch.arange(side).float()
    radius = torch.sqrt(index[:, None] ** 2 + index**2)
    ring = torch.floor(radius / radius.max().clamp_min(1.0) * 16).long().clamp(0, 15)
    _, count = ring_frequency(side, side, REFERENCE.loss)
    assert count.tolist() == torch.bincount(ring.flatten(), minlength=16).tolist()
    power = torch.rand(2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(side))
    expected = [[row[ring == k].sum() / ((ring == k).sum() + 1e-8) for k in range(16)] for row in power]
    torch.testing.assert_close(ring_means(power, REFERENCE.curve), torch.tensor(expected, dtype=torch.float64))
    squared = np.arange(side) ** 2
    exact = np.minimum(np.floor(np.sqrt(256 * (squared[:, None] + squared) // (2 * (side - 1) ** 2))), 15)
    assert np.abs(ring.numpy() - exact).max() <= 1


def test_bins_without_a_cell_are_zero_for_reference() -> None:
    power = radial_power(noise(1, 3, 4, 4), REFERENCE.loss)
    assert (power == 0).sum() == (ring_frequency(4, 4, REFERENCE.loss)[1] == 0).sum() + 1 == 8  # and bin 0 holds DC alone


def test_power_has_the_released_floor() -> None:
    power = radial_power(torch.zeros(1, 3, 32, 32, dtype=torch.float64), REFERENCE.curve)
    assert power.tolist() == [pytest.approx([1e-8] * 16, rel=1e-8)]


@pytest.mark.parametrize("size", [(8, 8), (10, 10), (16, 16), (32, 32), (24, 40), (72, 60)])
def test_physical_equals_a_double_loop(size: tuple[int, int]) -> None:
    x = noise(2, 3, *size)
    means, frequency, count = physical_by_hand(x)
    np.testing.assert_allclose(radial_power(x, PHYSICAL).numpy(), means, rtol=1e-10)
    found_frequency, found_count = ring_frequency(*size, PHYSICAL)
    np.testing.assert_allclose(found_frequency.numpy(), frequency, rtol=1e-12)
    assert found_count.tolist() == count.tolist()


@pytest.mark.parametrize(("side", "rings"), [(8, 7), (16, 13), (32, 19)])
def test_physical_rings_from_one_cycle_per_frame_have_the_documented_number(side: int, rings: int) -> None:
    frequency, _ = ring_frequency(side, side, PHYSICAL)
    assert ((frequency >= 0.9 / side) & (frequency <= 0.5)).sum() == rings


def test_no_physical_ring_is_empty_or_very_narrow() -> None:
    for side in range(3, 130):
        frequency, count = ring_frequency(side, side + 3, PHYSICAL)
        assert (count >= 1).all()
        assert (frequency.diff() > 0.3 * 0.5 / side).all()
        assert frequency[-1] <= 0.5


@pytest.mark.parametrize("side", [16, 96])
def test_white_noise_has_power_one_in_every_ring(side: int) -> None:
    x = noise(400 if side == 16 else 20, 3, side, side)
    spectrum = spectrum_of(x, PHYSICAL)
    spread = (2 / (3 * len(x) * spectrum.count)).sqrt()
    assert ((spectrum.mean() - 1).abs() < 4 * spread).all()


def test_a_wave_lands_in_the_ring_of_its_frequency() -> None:
    frequency, _ = ring_frequency(64, 64, PHYSICAL)
    wave = torch.cos(2 * torch.pi * 0.25 * (torch.arange(64, dtype=torch.float64) + 0.5)).expand(1, 1, 64, 64)
    ring = radial_power(wave, PHYSICAL)[0].argmax()
    assert frequency[ring - 1] < 0.25 < frequency[ring + 1]


def test_an_image_at_latent_size_is_measured_as_ideally_downsampled() -> None:
    x, (h, w) = noise(2, 3, 64, 48), (16, 12)
    low = scipy.fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho")[..., :h, :w] * np.sqrt(h * w / (64 * 48))
    small = torch.from_numpy(scipy.fft.idctn(low, axes=(-2, -1), norm="ortho"))
    assert_close(radial_power(x, PHYSICAL, (h, w)), radial_power(small, PHYSICAL), rtol=1e-10, atol=0)
    crop = replace(REFERENCE.loss, downsample="dct-crop")
    assert_close(radial_power(x, crop, (h, w)), radial_power(small, crop), rtol=1e-10, atol=0)


def test_power_is_quadratic_and_blind_to_the_mean() -> None:
    x = noise(2, 3, 32, 32)
    assert_close(radial_power(3 * x + 5, PHYSICAL), 9 * radial_power(x, PHYSICAL), rtol=1e-9, atol=0)
    assert_close(radial_power(x + 5, REFERENCE.loss), radial_power(x, REFERENCE.loss), rtol=1e-9, atol=0)


def test_spectrum_keeps_a_table_that_grows() -> None:
    x = noise(5, 4, 16, 16).float()
    joined = spectrum_of(x[:2], PHYSICAL) + spectrum_of(x[2:], PHYSICAL)
    whole = spectrum_of(x, PHYSICAL)
    assert (len(joined), joined.power.dtype, joined.size, joined.source) == (5, torch.float64, (16, 16), (16, 16))
    assert_close(joined.power, whole.power, rtol=1e-5, atol=0)
    assert_close(joined.mean(), joined.power.sum(0) / 5)


def test_spectra_of_unlike_rings_are_not_joined() -> None:
    x = noise(2, 3, 32, 32)
    for other in (spectrum_of(x, REFERENCE.curve), spectrum_of(x, PHYSICAL, (16, 16)), spectrum_of(x[..., :16], PHYSICAL)):
        with pytest.raises(ValueError, match="different rings"):
            spectrum_of(x, PHYSICAL) + other


def test_autocast_and_half_precision_do_not_coarsen_the_power() -> None:
    x = noise(2, 3, 64, 64).float()
    for estimator, size in ((REFERENCE.loss, None), (REFERENCE.loss, (16, 16)), (PHYSICAL, None)):
        for y in (x, x.bfloat16()):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = radial_power(y, estimator, size)
            assert found.dtype == torch.float32
            assert_close(found.double(), radial_power(y.double(), estimator, size), rtol=1e-4, atol=1e-7)


def test_matrices_first_used_in_inference_mode_serve_training() -> None:
    for source, size in (((20, 28), None), ((80, 56), (20, 14)), ((84, 68), None)):
        with torch.inference_mode():
            radial_power(noise(1, 1, *source), REFERENCE.loss, size)
        x = noise(1, 1, *source).requires_grad_()
        radial_power(x, REFERENCE.loss, size).sum().backward()
        assert x.grad.abs().sum() > 0


def test_grids_too_small_for_physical_rings_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="2x2 grid is too small for PHYSICAL rings"):
        radial_power(noise(1, 1, 2, 2), PHYSICAL)
    with pytest.raises(ValueError, match=r"\(3, 8, 8\)"):
        radial_power(noise(3, 8, 8), PHYSICAL)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_follows_cpu() -> None:
    x = noise(2, 3, 96, 96).float()
    for estimator, size in ((REFERENCE.loss, None), (REFERENCE.curve, (12, 12)), (PHYSICAL, None), (PHYSICAL, (12, 12))):
        assert_close(radial_power(x.cuda(), estimator, size).cpu(), radial_power(x, estimator, size), rtol=1e-4, atol=1e-6)
