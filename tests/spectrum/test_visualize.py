"""Compare the pixel values with numpy's SVD, loops over tokens, scipy's DCT and the masks."""

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from smtool.spectrum import cosine_map, fit_pca, low_pass_mask, magnitude_normalized, mask_picture, pca_pictures


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_principal_axes_are_those_of_numpys_svd(rng):
    x = rng.standard_normal((5, 6, 4, 3)) * np.arange(1, 7)[:, None, None] + 3
    found = fit_pca(torch.from_numpy(x), generator=drawn())
    tokens = x.transpose(0, 2, 3, 1).reshape(-1, 6)
    _, _, rows = np.linalg.svd(tokens - tokens.mean(0), full_matrices=False)
    np.testing.assert_allclose(found.mean.numpy(), tokens.mean(0), rtol=1e-12)
    for k in range(3):
        assert abs(rows[k] @ found.axes[:, k].numpy()) == pytest.approx(1, abs=1e-9)
        assert found.axes[found.axes[:, k].abs().argmax(), k] > 0


def test_pictures_are_stretched_over_all_three_components(rng):
    x = torch.from_numpy(rng.standard_normal((4, 5, 6, 7)))
    principal = fit_pca(x, generator=drawn())
    found = pca_pictures(x, principal)
    assert found.shape == (4, 3, 6, 7)
    assert found.dtype == torch.uint8
    for image, picture in zip(x, found, strict=True):
        centred = image - principal.mean[:, None, None]
        parts = torch.stack([(centred * principal.axes[:, k, None, None]).sum(0) for k in range(3)])
        expected = (parts - parts.min()) / (parts.max() - parts.min()) * 255
        assert_close(picture.double(), expected.round(), rtol=0, atol=0)


def test_only_the_first_64_images_and_4096_positions_of_each_are_fitted():
    x = torch.randn(70, 3, 4, 4, generator=drawn())
    x[64:] += 1000
    assert fit_pca(x, generator=drawn()).mean.abs().max() < 1
    large = torch.randn(2, 3, 80, 80, generator=drawn())
    once, again, other = (fit_pca(large, generator=drawn(seed)) for seed in (1, 1, 2))
    assert_close(once.mean, again.mean, rtol=0, atol=0)
    assert not torch.equal(once.mean, other.mean)
    assert not torch.equal(once.mean.float(), large.double().mean((0, 2, 3)).float())


def test_latents_without_variation_are_of_one_colour():
    principal = fit_pca(torch.randn(2, 3, 4, 4, generator=drawn()), generator=drawn())
    found = pca_pictures(torch.ones(1, 3, 4, 4), principal)
    assert torch.equal(found, found[..., :1, :1].expand_as(found))
    assert pca_pictures(principal.mean.view(1, 3, 1, 1).expand(1, 3, 4, 4), principal).sum() == 0


def test_two_channels_are_no_colours():
    with pytest.raises(ValueError, match="C >= 3"):
        fit_pca(torch.ones(2, 2, 4, 4), generator=drawn())


def test_the_likeness_of_a_token_equals_a_loop(rng):
    x = rng.standard_normal((2, 5, 4, 6))
    found = cosine_map(torch.from_numpy(x), 1, 3)
    assert_close(found[:, 1, 3], torch.ones(2, dtype=torch.float64))
    for b in range(2):
        for i in range(4):
            for j in range(6):
                a, token = x[b, :, i, j], x[b, :, 1, 3]
                assert found[b, i, j].item() == pytest.approx(a @ token / np.linalg.norm(a) / np.linalg.norm(token), abs=1e-12)


def test_a_token_of_length_zero_is_like_nothing_and_one_outside_is_refused():
    assert cosine_map(torch.zeros(1, 3, 2, 2), 0, 0).abs().max() == 0
    with pytest.raises(ValueError, match=r"no token \(2, 0\)"):
        cosine_map(torch.zeros(1, 3, 2, 2), 2, 0)


def test_the_magnitude_normalized_image_is_white_and_keeps_signs_mean_and_variance(rng):
    x = torch.from_numpy(rng.standard_normal((2, 3, 16, 12))).cumsum(-1).cumsum(-2)
    found = magnitude_normalized(x).numpy()
    before, after = (scipy.fft.dctn(y, axes=(-2, -1), norm="ortho") for y in (x.numpy(), found))
    magnitude = np.abs(after).reshape(2, 3, -1)[..., 1:]
    np.testing.assert_allclose(magnitude, magnitude[..., :1] * np.ones(191), rtol=1e-9)
    np.testing.assert_array_equal(np.sign(before), np.sign(after))
    np.testing.assert_allclose(found.mean((2, 3)), x.numpy().mean((2, 3)), rtol=1e-9)
    np.testing.assert_allclose(found.var((2, 3)), x.numpy().var((2, 3)), rtol=1e-9)


@pytest.mark.parametrize(("rows", "shape"), [(0, "triangle"), (8, "triangle"), (4, "square")])
def test_a_mask_picture_shows_the_mask_cell_by_cell(rows, shape):
    picture = mask_picture(8, rows, shape=shape, cell=5)
    assert picture.shape == (3, 40, 40)
    inside = picture[0].unfold(0, 5, 5).unfold(1, 5, 5)[..., 1:-1, 1:-1]  # (8, 8, 3, 3) without the lines
    assert bool((inside == inside[..., :1, :1]).all())
    assert torch.equal(inside[..., 0, 0] > 128, low_pass_mask(8, rows, shape=shape))
    assert torch.equal(picture[0], picture[2])


def test_cells_too_small_to_show_are_refused():
    with pytest.raises(ValueError, match="at least 3 pixels"):
        mask_picture(8, 2, cell=2)


def test_half_precision_features_are_widened():
    x = torch.randn(1, 4, 6, 6, generator=drawn())
    assert_close(cosine_map(x.half(), 2, 2), F.cosine_similarity(x, x[..., 2:3, 2:3].expand_as(x), dim=1), rtol=0, atol=2e-3)
