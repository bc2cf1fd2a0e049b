import numpy as np
import pytest
import scipy.fft
import torch

from smtool.pipelines.spectrum.low_pass_curve import LowPassCurve, low_pass_curve


def removed(x: np.ndarray, rows: int) -> np.ndarray:
    """LP_n by a plain loop over 8x8 tiles."""
    out = np.empty_like(x)
    for top in range(0, x.shape[-2], 8):
        for left in range(0, x.shape[-1], 8):
            cells = scipy.fft.dctn(x[..., top:top + 8, left:left + 8], axes=(-2, -1), norm="ortho")
            for u in range(8):
                for v in range(8):
                    if u + v >= 15 - rows:
                        cells[..., u, v] = 0
            out[..., top:top + 8, left:left + 8] = scipy.fft.idctn(cells, axes=(-2, -1), norm="ortho")
    return out


def psnr(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 10 * np.log10(4 / ((x - y) ** 2).mean((1, 2, 3)))


def test_the_curve_is_that_of_a_plain_loop(rng):
    images = rng.uniform(-1, 1, (2, 3, 16, 16))
    latents = images[:, :, ::2, ::2].copy()

    def decode(z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(z, scale_factor=2, mode="nearest")

    curve = low_pass_curve(decode, torch.from_numpy(images), torch.from_numpy(latents))
    for rows in (0, 1, 8, 14):
        low = removed(latents, rows).repeat(2, -1).repeat(2, -2)
        np.testing.assert_allclose(curve.aligned[:, rows], psnr(low, removed(images, rows)), atol=1e-6)
        whole = latents.repeat(2, -1).repeat(2, -2)
        np.testing.assert_allclose(curve.control[:, rows], psnr(whole, removed(images, rows)), atol=1e-6)
        np.testing.assert_allclose(curve.gap[:, rows], psnr(whole, images) - psnr(low, removed(images, rows)), atol=1e-6)


def test_a_decoder_that_follows_every_removal_has_no_gap():
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    curve = low_pass_curve(lambda z: z + 0.1, images, images)
    np.testing.assert_allclose(curve.aligned, 10 * np.log10(4 / 0.01), atol=1e-3)
    assert curve.gap.abs().max() < 1e-3
    assert (curve.control[:, 14] < curve.control[:, 0]).all()      # one that ignores it pays


def test_a_latent_of_4_cells_is_one_block_of_its_own():
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    curve = low_pass_curve(lambda z: torch.nn.functional.interpolate(z, scale_factor=4), images, images[:, :, ::4, ::4])
    assert curve.block == 4
    assert curve.aligned.isfinite().all()


def test_parts_of_a_set_are_joined_in_order():
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = low_pass_curve(lambda z: 0.9 * z, images, images)
    parts = LowPassCurve.joined([low_pass_curve(lambda z: 0.9 * z, part, part) for part in images.split(2)])
    torch.testing.assert_close(parts.gap, whole.gap, rtol=0, atol=1e-4)


def test_sides_that_blocks_do_not_fill_are_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        low_pass_curve(lambda z: z, torch.zeros(1, 3, 12, 12), torch.zeros(1, 3, 12, 12))
