import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor

from smtool.spectrum.downsample import shrunk_dct

SIZES = [
    ((256, 256), (32, 32)),
    ((256, 256), (16, 16)),
    ((128, 64), (32, 16)),
    ((96, 64), (12, 8)),
    ((61, 100), (7, 9)),
    ((16, 16), (16, 16)),
]


def picture(height: int, width: int) -> Tensor:
    noise = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return noise.cumsum(-1).cumsum(-2) / 30


def scipy_dct(x: Tensor) -> np.ndarray:
    return scipy.fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho")


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_released_resampling_equals_blur_and_interpolation(source: tuple[int, int], size: tuple[int, int]) -> None:
    x = shrunk = picture(*source)
    if size[0] != 32:
        taps = torch.exp(-(torch.arange(-3, 4, dtype=torch.float64) ** 2) / (2 * 1.2**2))
        kernel = taps[:, None] * taps / (taps[:, None] * taps).sum()
        shrunk = F.conv2d(x, kernel.expand(3, 1, 7, 7), padding=3, groups=3)
    shrunk = F.interpolate(shrunk, size=size, mode="bicubic", align_corners=False, antialias=False)
    np.testing.assert_allclose(shrunk_dct(x, size, "released").numpy(), scipy_dct(shrunk), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_antialiased_resampling_equals_interpolation(source: tuple[int, int], size: tuple[int, int]) -> None:
    x = picture(*source)
    shrunk = F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)
    np.testing.assert_allclose(shrunk_dct(x, size, "antialias").numpy(), scipy_dct(shrunk), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_dct_crop_samples_the_band_limited_image(source: tuple[int, int], size: tuple[int, int]) -> None:
    """The scaled low cells are the DCT of the low-passed image, sampled at the centres of the larger pixels."""
    x = picture(*source)
    rows, columns = (
        np.cos(np.pi * np.arange(n) * (np.arange(n)[:, None] + 0.5) / n) * np.sqrt(np.where(np.arange(n) == 0, 1, 2) / side)
        for n, side in zip(size, source, strict=True)
    )
    sampled = rows @ scipy_dct(x)[..., : size[0], : size[1]] @ columns.T
    np.testing.assert_allclose(shrunk_dct(x, size, "dct-crop").numpy(), scipy_dct(torch.from_numpy(sampled)), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("side", "touched"), [(32, range(2, 6)), (16, range(3, 13))])
def test_rows_that_the_released_resampling_never_touches_are_not_read(side: int, touched: range) -> None:
    x = picture(256, 256)
    expected = shrunk_dct(x, (side, side), "released")
    untouched = [row for row in range(256) if row % (256 // side) not in touched]
    x[:, :, untouched] = torch.nan
    torch.testing.assert_close(shrunk_dct(x, (side, side), "released"), expected, rtol=0, atol=0)


def test_dct_crop_of_a_smaller_image_is_refused() -> None:
    with pytest.raises(ValueError, match="16 pixels has no 32"):
        shrunk_dct(picture(16, 16), (32, 32), "dct-crop")
