"""SSVAE's two regularizers, restated with loops in numpy: correlation of 2x2 windows (LCR), masked latents (LMR)."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch

from smtool.errors import RecipeError
from smtool.networks.posterior import Posterior
from smtool.randomness import streams
from smtool.recipe import TrainAE, load
from smtool.regularizers import Encoding, LatentMasking, LocalCorrelation, Pair, Shapes
from smtool.training.terms import AdaptiveWeight

SHAPES = Shapes((3, 3, 16, 24), (3, 5, 4, 6))


def _means(scale: float = 1.0) -> torch.Tensor:
    values = torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (scale * values + torch.arange(5.0, dtype=torch.float64).view(1, 5, 1, 1)).requires_grad_()


def _encoding(means: torch.Tensor) -> Encoding:
    return Encoding(torch.zeros(3, 3, 16, 24), Posterior(means, torch.zeros_like(means)), means + 1)


def _correlation(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> float:
    """x (B, C, h, w); mean, std (C,)."""
    u = (x - mean[None, :, None, None]) / (std[None, :, None, None] + 1e-6)
    products = []
    for image in u:
        for i in range(0, image.shape[1], 2):
            for j in range(0, image.shape[2], 2):
                cells = [image[:, i + a, j + b] - image[:, i + a, j + b].mean() for a in (0, 1) for b in (0, 1)]
                products += [p @ q / np.sqrt((p @ p) * (q @ q)) for p, q in combinations(cells, 2)]
    assert len(products) == 6 * x.shape[0] * x.shape[2] * x.shape[3] // 4
    return float(np.mean(products))


def test_local_correlation_and_its_gradient_are_those_of_loops_over_windows(numeric_gradient):
    """Statistics are constants in the gradient."""
    means = _means()
    x = means.detach().numpy()
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    found = LocalCorrelation().build(SHAPES, None).penalty(_encoding(means), None)
    found.backward()
    assert found.item() == pytest.approx(0.75 - _correlation(x, mean, std), rel=1e-12)
    wanted = numeric_gradient(lambda moved: 0.75 - _correlation(moved, mean, std), x)
    np.testing.assert_allclose(means.grad.numpy(), wanted, atol=1e-8)


def test_equal_neighbours_are_not_penalized_and_get_no_gradient():
    coarse = torch.randn(3, 5, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2).requires_grad_()
    for threshold, expected in ((0.75, 0.0), (1.0, 0.0)):
        found = LocalCorrelation(threshold=threshold).build(SHAPES, None).penalty(_encoding(means), None)
        assert found.item() == pytest.approx(expected, abs=1e-12)
    LocalCorrelation().build(SHAPES, None).penalty(_encoding(means), None).backward()
    assert means.grad.abs().max() == 0


def test_scale_and_offset_of_a_channel_do_not_matter():
    method = LocalCorrelation().build(SHAPES, None)
    gains = torch.tensor([1.0, 3.0, 0.1, 10.0, 7.0], dtype=torch.float64).view(1, 5, 1, 1)
    one, other = (method.penalty(_encoding(means), None).item() for means in (_means(), gains * _means() + gains))
    assert one == pytest.approx(other, abs=1e-5)      # 1e-6 is added to the std


def test_the_weight_is_the_released_one():
    method = LocalCorrelation().build(SHAPES, None)
    assert method.weight == pytest.approx(0.1 * 0.02)
    assert method.adaptive_weight == AdaptiveWeight("encoder", offset=1e-4, cap=1e8)


def _masking(**keys):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LatentMasking(**keys).build(SHAPES, None).double()


@pytest.mark.parametrize(("ratio", "block"), [(0.25, 1), (0.75, 1), (0.5, 2)])
def test_masked_cells_are_the_token_in_all_images_and_the_others_stay(ratio, block):
    method = _masking(ratios=(ratio,), probabilities=(1.0,), block=block)
    draw = method.draw(streams(0, 3, "autoencoder", batch=3), SHAPES)
    latents = _means()
    images = torch.zeros(3, 3, 16, 24, dtype=torch.float64)
    (pair,) = method.before_decode([Pair(images, latents, 0.5)], draw)
    assert pair.images is images and pair.weight == 0.5
    found, before, token = pair.latents.detach().numpy(), latents.detach().numpy(), method.token.detach().numpy()
    masked = np.array([[np.array_equal(found[0, :, i, j], token) for j in range(6)] for i in range(4)])
    assert masked.sum() == ratio * 24
    for i in range(4):
        for j in range(6):
            assert masked[i, j] == masked[i - i % block, j - j % block]
            for b in range(3):
                np.testing.assert_array_equal(found[b, :, i, j], token if masked[i, j] else before[b, :, i, j])
    pair.latents.sum().backward()
    np.testing.assert_allclose(method.token.grad.numpy(), 3 * masked.sum())      # once per image and masked cell
    np.testing.assert_array_equal(latents.grad.numpy(), np.broadcast_to(~masked, before.shape))


def test_ratios_have_the_published_probabilities_and_ranks_mask_the_same_cells():
    method = _masking()
    counts, cells = Counter(), torch.zeros(4, 6)
    for step in range(1000):
        whole = streams(0, step, "autoencoder", batch=4)
        one, two = (method.draw(part, SHAPES) for part in (whole.at(0, 2), whole.at(2, 4)))
        assert one.ratio == two.ratio and torch.equal(one.scores, two.scores)
        counts[one.ratio] += 1
        cells += one.scores < 0.5
    assert abs(counts[0.0] - 700) < 60 and all(abs(counts[ratio] - 100) < 40 for ratio in (0.25, 0.5, 0.75))      # sd 14, 9.5
    assert (cells - 500).abs().max() < 70      # sd 16: every cell is masked equally often


def test_ratio_0_changes_nothing_and_smaller_pairs_are_masked_too():
    method = _masking(ratios=(0.0, 0.5), probabilities=(0.5, 0.5))
    draws = [method.draw(streams(0, step, "autoencoder", batch=3), SHAPES) for step in range(20)]
    plain, half = (next(draw for draw in draws if draw.ratio == ratio) for ratio in (0.0, 0.5))
    pair = Pair(torch.zeros(3, 3, 8, 12), torch.zeros(3, 5, 2, 3, dtype=torch.float64))
    assert method.before_decode([pair], plain)[0] is pair
    masked = method.before_decode([pair], half)[0].latents[0, 0] != 0
    assert masked.sum() == 3


@pytest.mark.parametrize(("change", "said"), [
    (["data.image_size=60"], r"local_correlation\.threshold: needs latents that windows of 2x2 fill, but they are 15x15"),
    (["model.latent_channels=1"], r"local_correlation\.threshold: needs at least 2 latent channels"),
    (["regularizers.eq_vae={}"], r"eq_vae\.prior: must be 0 with local_correlation"),
    (["train=decoder"], r"local_correlation: has no effect with train = 'decoder'"),
    (["regularizers.latent_masking.block=3"], r"latent_masking\.block: the latent is 16x16, which blocks of 3 do not fill"),
    (["regularizers.latent_masking.ratios=[0.5]"], r"latent_masking\.probabilities: has 4 values for 1 ratios"),
    (["regularizers.latent_masking.probabilities=[1, 0, 0, 1]"], r"latent_masking\.probabilities: must have the sum 1"),
    (["regularizers.latent_masking.ratios=[0, 1, 0, 0]"], r"latent_masking\.ratios"),
])
def test_wrong_input_is_refused_with_its_key(change, said):
    with pytest.raises(RecipeError, match=said):
        load("ssvae", TrainAE, change)


def test_both_combine_with_dsm_and_esm():
    assert len(load("ssvae", TrainAE, ["regularizers.dsm={}", "regularizers.esm={}"]).tables.regularizers.present) == 5
