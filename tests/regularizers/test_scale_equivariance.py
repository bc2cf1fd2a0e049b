import pytest
import torch

from smtool.randomness import streams
from smtool.regularizers import Pair, ScaleEquivariance, Shapes

SHAPES = Shapes((2, 3, 32, 32), (2, 4, 8, 8))


def _pair() -> Pair:
    generator = torch.Generator().manual_seed(0)
    return Pair(torch.randn(2, 3, 32, 32, generator=generator), torch.randn(2, 4, 8, 8, generator=generator))


def test_halving_is_the_mean_of_each_two_by_two_block():
    """Bilinear interpolation at scale 1/2 without antialias samples the corner between four pixels, which is their mean."""
    pair = _pair()
    (small,) = ScaleEquivariance().build(SHAPES, None).before_decode([pair], 0.5)
    for x, y in ((pair.images, small.images), (pair.latents, small.latents)):
        blocks = x.unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2)).mean((-3, -1))
        torch.testing.assert_close(y, blocks)


def test_quartering_keeps_the_middle_four_of_sixteen():
    pair = _pair()
    (small,) = ScaleEquivariance().build(SHAPES, None).before_decode([pair], 0.25)
    blocks = pair.images.unflatten(-2, (-1, 4)).unflatten(-1, (-1, 4))[..., 1:3, :, 1:3].mean((-3, -1))
    torch.testing.assert_close(small.images, blocks)
    assert small.latents.shape == (2, 4, 2, 2)


def test_baseline_replaces_the_pair_and_the_original_form_adds_a_weighted_one():
    pair = _pair()
    (replaced,) = ScaleEquivariance().build(SHAPES, None).before_decode([pair], 0.5)
    assert replaced.weight == 1.0
    kept, added = ScaleEquivariance(form="append", scales=(0.5,), alpha=0.3).build(SHAPES, None).before_decode([pair], 0.5)
    assert kept is pair
    assert added.weight == 0.3
    assert torch.equal(added.latents, replaced.latents)
    half = Pair(pair.images, pair.latents, 0.5)      # a pair that another regularizer has appended
    assert ScaleEquivariance().build(SHAPES, None).before_decode([half], 0.5)[0].weight == 0.5
    kept, added = ScaleEquivariance(form="append", scales=(0.5,), alpha=0.3).build(SHAPES, None).before_decode([half], 0.5)
    assert (kept.weight, added.weight) == (0.5, 0.15)


def test_scales_are_drawn_from_the_set_and_shared_by_all_ranks():
    method = ScaleEquivariance().build(SHAPES, None)
    drawn = [method.draw(streams(0, step, "autoencoder", batch=4).at(0, 2), SHAPES) for step in range(60)]
    assert set(drawn) == {1.0, 0.5, 0.25}
    assert drawn == [method.draw(streams(0, step, "autoencoder", batch=4).at(2, 4), SHAPES) for step in range(60)]


@pytest.mark.parametrize(("scales", "words"), [((0.0,), "above 0"), ((1.5,), "at most 1"), ((0.3,), "not a whole number")])
def test_impossible_scales_are_named(scales, words):
    ((key, sentence),) = ScaleEquivariance(scales=scales).problems(SHAPES)
    assert key == "scales"
    assert words in sentence


def test_the_table_reports_the_smallest_scale():
    assert ScaleEquivariance().smallest_scale(SHAPES) == 0.25
