"""Reconstruction quality of each image: PSNR and SSIM."""

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, (B,); infinite for equal images.

    x, y: (B, C, H, W), uint8 in [0, 255] or float in [-1, 1]; the peak is the width of that range. The PSNR of a data set is the
    mean of these values, not the PSNR of the mean error.
    """
    first, second = _same_range(x, y)
    error = (first - second).square().flatten(1).mean(1)
    return 10.0 * torch.log10(1.0 / error)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004), (B,), 1 for equal images.

    x, y: (B, C, H, W), uint8 in [0, 255] or float in [-1, 1]; sides of at least 11. An 11x11 Gaussian window of sigma 1.5,
    no padding (only windows inside the image), constants 0.01 and 0.03, mean over channels and positions. Intensities are shifted
    to start at 0, as published; the luminance term would differ on unshifted values in [-1, 1].
    Oracle: scikit-image with gaussian_weights=True, use_sample_covariance=False.
    """
    first, second = _same_range(x, y)
    if min(first.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW} px, found {first.shape[-2]}x{first.shape[-1]}")
    mean_x, mean_y, xx, yy, xy = _windowed(torch.stack([first, second, first * first, second * second, first * second]))
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2.0 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    variance = xx - mean_x.square() + yy - mean_y.square()
    structure = (2.0 * (xy - mean_x * mean_y) + c2) / (variance + c2)
    return (luminance * structure).flatten(1).mean(1)


def ssim_reflected(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each image as in torchmetrics with data_range=(-1, 1), (B,), 1 for equal images.

    x, y: (B, C, H, W), float in [-1, 1], sides of at least 6; values outside are clamped. The window of `ssim` is applied at
    every pixel of the reflect-padded image. Intensities are not shifted to 0, so the luminance term differs from the published
    one (constants .02^2 and .06^2); variances below 0 from rounding are set to 0.
    Oracle: torchmetrics.functional.structural_similarity_index_measure.
    """
    if not (x.is_floating_point() and y.is_floating_point()) or x.shape != y.shape or x.ndim != 4:
        raise ValueError(f"two float batches (B, C, H, W) of one shape are needed, found {x.dtype} {tuple(x.shape)}, {y.dtype}")
    if min(x.shape[-2:]) <= SSIM_WINDOW // 2:
        raise ValueError(f"reflect-padded SSIM needs sides of at least {SSIM_WINDOW // 2 + 1} px, found {tuple(x.shape[-2:])}")
    first, second = (_padded(image.to(torch.promote_types(image.dtype, torch.float32)).clamp(-1.0, 1.0)) for image in (x, y))
    mean_x, mean_y, xx, yy, xy = _windowed(torch.stack([first, second, first * first, second * second, first * second]))
    c1, c2 = 0.02**2, 0.06**2
    luminance = (2.0 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    variance = (xx - mean_x.square()).clamp(min=0.0) + (yy - mean_y.square()).clamp(min=0.0)
    structure = (2.0 * (xy - mean_x * mean_y) + c2) / (variance + c2)
    return (luminance * structure).flatten(1).mean(1)


def _padded(x: Tensor) -> Tensor:
    return F.pad(x, (SSIM_WINDOW // 2,) * 4, mode="reflect")


def _same_range(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in [0, 1], float32 at least."""
    if x.shape != y.shape or x.ndim != 4:
        raise ValueError(f"two batches (B, C, H, W) of one shape are needed, found {tuple(x.shape)} and {tuple(y.shape)}")
    if x.is_floating_point() != y.is_floating_point():
        raise ValueError(f"one batch is {x.dtype} and the other {y.dtype}; give both as uint8 or both as float in [-1, 1]")
    return _unit(x), _unit(y)


def _unit(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x.float() / 255.0
    return (x.to(torch.promote_types(x.dtype, torch.float32)) + 1.0) / 2.0


def _windowed(x: Tensor) -> Tensor:
    """Gaussian-weighted means over all windows inside the image: (..., H, W) -> (..., H - 10, W - 10)."""
    rows = _window_matrix(x.shape[-2], like=x)
    columns = _window_matrix(x.shape[-1], like=x)
    with torch.autocast(x.device.type, enabled=False):
        return rows @ x @ columns.T


def _window_matrix(size: int, *, like: Tensor) -> Tensor:
    """(size - 10, size): row i holds the window that starts at position i."""
    offset = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-0.5 * (offset / SSIM_SIGMA).square())
    positions = torch.arange(size - SSIM_WINDOW + 1)
    matrix = torch.zeros(len(positions), size, dtype=torch.float64)
    for k, weight in enumerate(weights / weights.sum()):
        matrix[positions, positions + k] = weight
    return matrix.to(like)
