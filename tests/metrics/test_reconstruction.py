import math

import numpy as np
import pytest
import skimage.data
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from smtool.metrics.reconstruction import psnr, ssim, ssim_reflected


@pytest.fixture(scope="module")
def pair():
    """Two uint8 batches (3, 3, 60, 72): crops of a photograph, and the same with noise of three strengths."""
    rng = np.random.default_rng(0)
    photograph = skimage.data.astronaut()
    crops = np.stack([photograph[y : y + 60, x : x + 72] for y, x in ((0, 0), (100, 200), (300, 80))])
    noise = rng.standard_normal(crops.shape) * np.array([2, 10, 40]).reshape(3, 1, 1, 1)
    noisy = np.clip(np.rint(crops + noise), 0, 255).astype(np.uint8)
    return tuple(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous() for images in (crops, noisy))


def channels_last(image):
    return image.permute(1, 2, 0).numpy()


def test_psnr_of_each_image_equals_scikit_images(pair):
    expected = [peak_signal_noise_ratio(*map(channels_last, images)) for images in zip(*pair, strict=True)]
    np.testing.assert_allclose(psnr(*pair), expected, rtol=1e-5)


def test_ssim_of_each_image_equals_scikit_images(pair):
    options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [structural_similarity(*map(channels_last, images), **options) for images in zip(*pair, strict=True)]
    np.testing.assert_allclose(ssim(*pair), expected, rtol=0, atol=2e-5)      # float32 variances by difference
    precise = ssim(*(images.double() / 127.5 - 1 for images in pair))
    np.testing.assert_allclose(precise, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(60, 72), (16, 9), (6, 11)])
def test_reflected_ssim_of_each_image_equals_torchmetrics_on_values_that_leave_the_range(pair, size):
    """The released evaluation: StructuralSimilarityIndexMeasure(data_range=(-1.0, 1.0)) on the decoder's floats."""
    x, y = (1.3 * (images[..., : size[0], : size[1]].double() / 127.5 - 1) for images in pair)
    assert (y.abs() > 1).any()
    expected = [structural_similarity_index_measure(b[None], a[None], data_range=(-1.0, 1.0)) for a, b in zip(x, y, strict=True)]
    torch.testing.assert_close(ssim_reflected(x, y), torch.stack(expected), rtol=0, atol=1e-6)
    torch.testing.assert_close(ssim_reflected(x, x), torch.ones(3, dtype=torch.float64))
    single = ssim_reflected(x.float(), y.float())
    torch.testing.assert_close(single, torch.stack(expected).float(), rtol=0, atol=1e-4)      # float32 variances by difference


def test_the_two_ssims_are_different_numbers(pair):
    as_float = [images.float() / 127.5 - 1 for images in pair]
    assert ((ssim(*as_float) - ssim_reflected(*as_float)).abs() > torch.tensor([5e-5, 5e-3, 5e-3])).all()


@pytest.mark.parametrize("score", [psnr, ssim])
def test_float_images_in_minus_one_to_one_score_as_their_uint8_levels(score, pair):
    as_float = [images.float() / 127.5 - 1 for images in pair]
    torch.testing.assert_close(score(*as_float), score(*pair), rtol=1e-4, atol=1e-5)


def test_psnr_of_a_known_error_is_the_closed_form():
    x = torch.zeros(2, 3, 4, 4)
    y = x + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1)
    torch.testing.assert_close(psnr(x, y), torch.tensor([20.0, 40.0]), rtol=1e-5, atol=0)
    assert psnr(x, x).tolist() == [math.inf, math.inf]


def test_ssim_of_equal_images_is_one_and_falls_with_noise(pair):
    torch.testing.assert_close(ssim(pair[0], pair[0]), torch.ones(3))
    falling = ssim(*pair)
    assert falling[0] > falling[1] > falling[2] > 0


def test_scores_keep_float32_under_autocast(pair):
    as_float = [images.float() / 127.5 - 1 for images in pair]
    outside = ssim(*as_float)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ssim(*as_float)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_batches_that_do_not_fit_are_refused(pair):
    with pytest.raises(ValueError, match="one shape"):
        psnr(pair[0], pair[1][:2])
    with pytest.raises(ValueError, match=r"torch\.uint8 and the other torch\.float32"):
        psnr(pair[0], pair[1].float())
    with pytest.raises(ValueError, match="at least 11 px, found 8x20"):
        ssim(torch.zeros(1, 3, 8, 20), torch.zeros(1, 3, 8, 20))
    with pytest.raises(ValueError, match="two float batches"):
        ssim_reflected(pair[0], pair[1])
    with pytest.raises(ValueError, match="sides of at least 6 px"):
        ssim_reflected(torch.zeros(1, 3, 5, 20), torch.zeros(1, 3, 5, 20))
