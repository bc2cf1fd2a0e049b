import re
from collections import Counter

import numpy as np
import pytest
import scipy.fft
import torch
from pydantic import ValidationError

from smtool.randomness import streams
from smtool.recipe.problems import validation_problems
from smtool.regularizers import DSM, Pair, Shapes

SHAPES = Shapes((4, 3, 32, 32), (4, 5, 8, 8))


def _pair(dtype=torch.float32) -> Pair:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator, dtype=dtype)
    return Pair(images, torch.randn(4, 5, 8, 8, generator=generator, dtype=dtype))


def _by_scipy(x: np.ndarray, rows: int, block: int = 8) -> np.ndarray:
    """Per block, set the coefficients with u + v >= 2 block - 1 - rows to 0."""
    out = x.copy()
    u = np.arange(block)
    gone = u[:, None] + u >= 2 * block - 1 - rows
    for i in range(0, x.shape[-2], block):
        for j in range(0, x.shape[-1], block):
            coefficients = scipy.fft.dctn(x[..., i : i + block, j : j + block], axes=(-2, -1), norm="ortho")
            coefficients[..., gone] = 0
            out[..., i : i + block, j : j + block] = scipy.fft.idctn(coefficients, axes=(-2, -1), norm="ortho")
    return out


@pytest.mark.parametrize("rows", [8, 10, 12])
def test_both_halves_of_the_pair_lose_the_same_rows(rows):
    pair = _pair(torch.float64)
    (low,) = DSM().build(SHAPES, None).before_decode([pair], rows)
    np.testing.assert_allclose(low.images.numpy(), _by_scipy(pair.images.numpy(), rows), atol=1e-12)
    np.testing.assert_allclose(low.latents.numpy(), _by_scipy(pair.latents.numpy(), rows), atol=1e-12)


@pytest.mark.parametrize("block", [8, "fit"])
def test_a_pair_keeps_its_weight(block):
    pair = _pair()
    (low,) = DSM(block=block).build(SHAPES, None).before_decode([Pair(pair.images, pair.latents, 0.25)], 10)
    assert low.weight == 0.25


def test_no_rows_removed_returns_the_same_pair():
    pair = _pair()
    assert DSM().build(SHAPES, None).before_decode([pair], 0)[0] is pair


def test_each_cutoff_is_drawn_equally_often_and_is_the_same_in_every_part_of_the_batch():
    method = DSM().build(SHAPES, None)
    drawn = []
    for step in range(800):
        whole = streams(0, step, "autoencoder", batch=8)
        cutoff = method.draw(whole.at(0, 4), SHAPES)
        assert cutoff == method.draw(whole.at(4, 8), SHAPES)
        drawn.append(cutoff)
    counts = Counter(drawn)
    assert set(counts) == {0, 8, 10, 12}
    assert all(150 < count < 250 for count in counts.values())        # 200 expected, sd 12


@pytest.mark.parametrize("group", [2, 3, 16])
def test_every_n_consecutive_images_share_a_cutoff_however_the_batch_is_divided(group):
    """Image i of the global batch belongs to group i // N; the released trainers draw one cutoff for the images of a GPU."""
    method = DSM(per=group).build(SHAPES, None)
    groups = Counter()
    for step in range(400):
        whole = streams(0, step, "autoencoder", batch=8)
        cutoffs = torch.as_tensor(method.draw(whole, Shapes((8, 3, 32, 32), (8, 5, 8, 8)))).expand(8).tolist()
        for start, stop in ((0, 1), (1, 4), (4, 8)):      # ranks and micro-batches of different sizes
            shapes = Shapes((stop - start, 3, 32, 32), (stop - start, 5, 8, 8))
            part = torch.as_tensor(method.draw(whole.at(start, stop), shapes)).expand(stop - start)
            assert part.tolist() == cutoffs[start:stop]
        assert all(cutoffs[i] == cutoffs[i - i % group] for i in range(8))
        groups.update((i // group, cutoffs[i]) for i in range(0, 8, group))
    assert len(groups) == 4 * -(-8 // group)      # each group draws each of the four
    assert all(60 < count < 140 for count in groups.values())      # 100 expected, sd 8.7


def test_cutoffs_of_groups_are_independent():
    method = DSM(per=2).build(SHAPES, None)
    drawn = [method.draw(streams(0, step, "autoencoder", batch=4), SHAPES) for step in range(200)]
    unlike = sum(isinstance(rows, torch.Tensor) and rows[0] != rows[2] for rows in drawn)
    assert 125 < unlike < 175      # 150 of 200 expected, sd 6


def test_per_sample_cutoffs_follow_the_sample_and_not_the_micro_batch():
    method = DSM(per="sample").build(SHAPES, None)
    whole = streams(0, 5, "autoencoder", batch=4)
    cutoffs = method.draw(whole, SHAPES)
    assert len(set(cutoffs.tolist())) > 1
    pair = _pair()
    (low,) = method.before_decode([pair], cutoffs)
    for index, rows in enumerate(cutoffs.tolist()):
        expected = _by_scipy(pair.images[index].numpy(), rows)
        np.testing.assert_allclose(low.images[index].numpy(), expected, atol=1e-5)
    half = Shapes((2, 3, 32, 32), (2, 5, 8, 8))
    assert torch.equal(method.draw(whole.at(2, 4), half), cutoffs[2:])


@pytest.mark.parametrize(("side", "rows", "kept"), [(4, 8, 3), (4, 10, 2), (4, 12, 1), (2, 12, 1), (8, 8, 7)])
def test_fitted_block_keeps_the_same_share_of_rows_of_a_small_latent(side, rows, kept):
    """T_b = max(1, round(T (2b - 1) / 15)) with T = 15 - rows: anti-diagonals kept of a b x b block."""
    latents = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pair = Pair(torch.zeros(2, 3, 32, 32, dtype=torch.float64), latents)
    (low,) = DSM(block="fit").build(SHAPES, None).before_decode([pair], rows)
    expected = _by_scipy(latents.numpy(), 2 * side - 1 - kept, block=side)
    np.testing.assert_allclose(low.latents.numpy(), expected, atol=1e-12)


def test_gradient_of_the_decoder_side_is_the_projection_itself():
    pair = _pair(torch.float64)
    latents = pair.latents.clone().requires_grad_()
    (low,) = DSM().build(SHAPES, None).before_decode([Pair(pair.images, latents)], 10)
    upstream = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low.latents.backward(upstream)
    np.testing.assert_allclose(latents.grad.numpy(), _by_scipy(upstream.numpy(), 10), atol=1e-12)


@pytest.mark.parametrize(
    ("keys", "shapes", "key", "words"),
    [
        ({}, Shapes((4, 3, 32, 32), (4, 4, 4, 4)), "block", 'the latent is 4x4.*block = "fit"'),
        ({}, Shapes((4, 3, 36, 36), (4, 4, 36, 36)), "block", "the image is 36x36"),
        ({"block": "fit"}, Shapes((4, 3, 48, 48), (4, 4, 12, 12)), "block", "the latent is 12x12, which blocks of 8"),
        ({"rows_removed": (0, 15)}, SHAPES, "rows_removed", "between 0 and 14"),
        ({"rows_removed": (8,), "shape": "square"}, SHAPES, "rows_removed", "between 0 and 7"),
    ],
)
def test_impossible_settings_are_reported_as_problems(keys, shapes, key, words):
    name, sentence = next(DSM(**keys).problems(shapes))
    assert name == key
    assert re.search(words, sentence)


def test_released_set_is_no_problem_where_blocks_fit():
    assert list(DSM().problems(SHAPES)) == []
    assert list(DSM(block="fit").problems(Shapes((4, 3, 32, 32), (4, 4, 4, 4)))) == []


def test_a_wrong_number_of_images_is_one_problem():
    with pytest.raises(ValidationError) as caught:
        DSM(per=0)
    (problem,) = validation_problems(caught.value, DSM)
    assert problem == "per: must be 'batch' or 'sample' or must be at least 1, but is 0."
