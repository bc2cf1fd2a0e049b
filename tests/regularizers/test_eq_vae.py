from collections import Counter

import numpy as np
import pytest
import torch

from smtool.randomness import streams
from smtool.regularizers import EQVAE, Pair, Shapes
from smtool.regularizers.eq_vae import Transform

SHAPES = Shapes((2, 3, 256, 256), (2, 4, 32, 32))


def _draws(table: EQVAE, count: int) -> list[Transform]:
    method = table.build(SHAPES, None)
    return [method.draw(streams(0, step, "autoencoder", batch=4).at(0, 2), SHAPES) for step in range(count)]


def test_half_the_steps_transform_latents_and_an_eighth_shrink_the_image():
    counts = Counter(draw.moment for draw in _draws(EQVAE(), 2000))
    assert abs(counts["decode"] - 1000) < 90        # sd 22
    assert abs(counts["encode"] - 250) < 60         # sd 15
    assert abs(counts["none"] - 750) < 85


def test_scales_are_the_released_32nds_and_turns_are_never_zero():
    draws = _draws(EQVAE(), 1500)
    assert {draw.size[0] for draw in draws} == set(range(8, 32))
    assert all(draw.size[0] == draw.size[1] for draw in draws)
    assert {draw.turns for draw in draws} == {1, 2, 3}


def test_anisotropic_scales_differ_between_axes():
    assert any(draw.size[0] != draw.size[1] for draw in _draws(EQVAE(anisotropic=True), 20))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_latents_and_target_are_shrunk_and_turned_alike(turns):
    """For an image of constant 8x8 cells the latent equals the image at cell resolution, also after the transform."""
    latents = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = latents.repeat_interleave(8, -1).repeat_interleave(8, -2)
    method = EQVAE().build(SHAPES, None)
    (turned,) = method.before_decode([Pair(images, latents)], Transform("decode", (16, 16), turns, 8))
    assert turned.images.shape[-2:] == (128, 128)
    halved = latents.unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2)).mean((-3, -1))
    expected = np.rot90(halved.numpy(), k=turns, axes=(-1, -2))
    np.testing.assert_allclose(turned.latents.numpy(), expected, atol=1e-6)
    cells = turned.images.unflatten(-2, (-1, 8)).unflatten(-1, (-1, 8)).mean((-3, -1))
    torch.testing.assert_close(cells, turned.latents)


def test_rotation_alone_commutes_with_a_cellwise_decoder():
    latents = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = latents.repeat_interleave(4, -1).repeat_interleave(4, -2)
    (turned,) = EQVAE().build(SHAPES, None).before_decode([Pair(images, latents)], Transform("decode", (8, 8), 1, 4))
    decoded = turned.latents.repeat_interleave(4, -1).repeat_interleave(4, -2)
    torch.testing.assert_close(turned.images, decoded)


def test_prior_mode_shrinks_the_encoded_image_to_whole_cells_and_leaves_pairs_unchanged():
    method = EQVAE().build(SHAPES, None)
    draw = Transform("encode", (13, 13), 1, 8)
    assert method.before_encode(torch.zeros(2, 3, 256, 256), draw).shape == (2, 3, 104, 104)
    pair = Pair(torch.zeros(2, 3, 256, 256), torch.zeros(2, 4, 32, 32))
    assert method.before_decode([pair], draw) == [pair]
    assert method.before_encode(pair.images, Transform("decode", (13, 13), 1, 8)) is pair.images


def test_the_table_reports_the_smallest_scale_and_too_small_latents():
    assert EQVAE().smallest_scale(SHAPES) == 0.25
    ((key, sentence),) = EQVAE().problems(Shapes((2, 3, 8, 8), (2, 4, 1, 1)))
    assert key == "smallest"
    assert "1x1 latent" in sentence
