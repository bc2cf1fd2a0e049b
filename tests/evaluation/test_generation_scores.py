from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from smtool.data import open_images
from smtool.data.batches import to_uint8
from smtool.errors import DataError
from smtool.evaluation.comparison import Comparison, Side
from smtool.evaluation.generation_judges import Question
from smtool.evaluation.generation_scores import generation_scores
from smtool.evaluation.quick_distances import quick_distances
from smtool.features.load import load_extractor
from smtool.features.protocol import PROTOCOLS
from smtool.inference.sampling import Sampling
from smtool.metrics.inception_score import inception_score
from smtool.metrics.kernel import kernel_distance
from smtool.randomness import generator


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return open_images("builtin:photos?train=80&val=4", "train", image_size=32, root=root)


def noise(count, key="samples"):
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator(key))


@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")
def test_quick_distances_are_those_of_scipy_and_torch_fidelity(reference, frechet):
    found = quick_distances(noise(80), reference, features="random", num_images=80)
    extractor = load_extractor("random")
    real = to_uint8(reference.read(range(80)).images)
    # in batches of 64 as in quick_distances, because the order of float32 sums depends on the batch
    x, y = (torch.cat([extractor(part) for part in images.split(64)]).double() for images in (noise(80), real))
    assert list(found) == ["fd_random", "kid_random"]
    assert found["fd_random"] == pytest.approx(frechet(x.numpy(), y.numpy()), rel=1e-4)
    options = {"kid_subsets": 1, "kid_subset_size": 80, "rng_seed": 0, "verbose": False}
    expected = kid_features_to_metric(x, y, **options)["kernel_inception_distance_mean"]
    assert found["kid_random"] == pytest.approx(expected, rel=1e-9)


def test_quick_distances_take_as_many_images_as_asked(reference):
    few = quick_distances(noise(8), reference, features="random", num_images=8)
    extractor = load_extractor("random")
    y = extractor(to_uint8(reference.read(range(8)).images)).double()
    options = {"kid_subsets": 1, "kid_subset_size": 8, "rng_seed": 0, "verbose": False}
    expected = kid_features_to_metric(extractor(noise(8)).double(), y, **options)["kernel_inception_distance_mean"]
    assert few["kid_random"] == pytest.approx(expected, rel=1e-9)
    with pytest.raises(DataError, match="found 1 and 80"):
        quick_distances(noise(1), reference, features="random", num_images=8)


def judge(published=False):
    """A stand-in for an extractor whose features are given."""
    name = "inception" if published else "toy"
    return SimpleNamespace(
        name=name, score="fid" if published else "fd_toy", digest="0" * 64, resize="none", is_published_inception=published
    )


def vectors(count, key, dim=6, shift=0.0):
    return torch.randn(count, dim, generator=generator(key)) + shift


def compared(samples, images, kinds, *, published=False, seed=0, logits=None):
    extractor = judge(published)
    table = {(extractor.score, "pooled"): samples}
    if logits is not None:
        table[extractor.score, "logits"] = logits
    sides = (
        Side("samples", len(samples), table),
        Side("images", len(images), {(extractor.score, "pooled"): images}),
    )
    comparison = Comparison(*sides, PROTOCOLS["clean"], Sampling(), seed)
    return {score.name: score for score in generation_scores(comparison, Question(extractor, frozenset(kinds)))}


def test_intervals_equal_the_scatter_over_draws_of_samples(frechet):
    images = vectors(400, "images")
    found = [
        compared(vectors(150, f"draw{i}", shift=0.4), images, {"frechet", "kernel", "transport", "manifold"}, seed=i)
        for i in range(40)
    ]
    for name in ("fd_toy", "kid_toy", "mind_toy", "precision_toy", "density_toy"):
        scatter = 1.96 * np.std([scores[name].value for scores in found], ddof=1)      # over 40 draws: precise to 11 %
        assert np.mean([scores[name].half_width for scores in found]) == pytest.approx(scatter, rel=0.4), name


def test_kernel_distances_come_first_where_the_frechet_distance_is_unreliable(frechet):
    enough = compared(vectors(40, "x"), vectors(40, "y"), {"frechet"})
    assert list(enough) == ["fd_toy"]
    assert "bias due to N = 40 samples" in enough["fd_toy"].notes[0]
    few = compared(vectors(40, "x", dim=50), vectors(90, "y", dim=50), {"frechet"})
    assert list(few) == ["kid_toy", "fd_toy"]
    assert few["fd_toy"].notes[0].startswith("unreliable, 40 images for 50 features")
    assert list(compared(vectors(40, "x"), vectors(40, "y"), {"frechet", "kernel"})) == ["fd_toy", "kid_toy"]


def test_kernel_distances_of_many_images_are_taken_over_subsets(monkeypatch):
    samples, images = vectors(60, "x"), vectors(90, "y", shift=0.5)
    whole = compared(samples, images, {"kernel"})["kid_toy"]
    assert (whole.value, whole.passport.metric) == (kernel_distance(samples, images).value, "kernel distance")
    monkeypatch.setattr("smtool.evaluation.generation_scores.KERNEL_IMAGES", 50)
    many = compared(samples, images, {"kernel"})["kid_toy"]
    assert many.passport.metric == "kernel distance, 100 subsets of 60"
    assert many.value == pytest.approx(whole.value, rel=0.05)
    assert many.half_width == pytest.approx(whole.half_width, rel=0.3)


def test_a_fraction_of_0_or_1_has_no_interval():
    found = compared(vectors(40, "x", shift=50.0), vectors(40, "y"), {"manifold"})
    assert found["precision_toy"].value == 0.0
    assert found["precision_toy"].half_width is None
    assert found["precision_toy"].notes == ("no interval, because all images have the same value",)


def test_the_bias_of_few_samples_is_stated(frechet):
    found = compared(vectors(60, "x"), vectors(20_000, "y"), {"frechet"})["fd_toy"]
    told = float(found.notes[0].split()[1])
    assert told == pytest.approx(found.value, rel=0.6)      # of equal distributions, all of the distance is bias


def test_inception_scores_are_given_with_and_without_splits():
    logits = 4 * vectors(100, "logits", dim=9)
    found = compared(vectors(100, "x"), vectors(40, "y"), {"recognition"}, published=True, logits=logits)
    expected = inception_score(logits)
    assert (found["is"].value, found["is_whole"].value) == (expected.mean, expected.whole)
    parts = [inception_score(part, splits=1).mean for part in logits.split(10)]
    assert found["is"].half_width == pytest.approx(2.262 * np.std(parts, ddof=1) / np.sqrt(10), rel=1e-3)
    assert found["is"].passport.reference_sha256 is None
    assert found["is_whole"].half_width is None


def test_only_published_weights_give_the_published_names(frechet):
    kinds = {"frechet", "kernel", "transport", "manifold"}
    published = compared(vectors(40, "x"), vectors(40, "y"), kinds, published=True)
    own = compared(vectors(40, "x"), vectors(40, "y"), kinds)
    assert list(published)[:4] == ["fid", "kid", "mind", "precision_inception"]
    assert list(own)[:4] == ["fd_toy", "kid_toy", "mind_toy", "precision_toy"]
    assert [score.value for score in published.values()][3:] == [score.value for score in own.values()][3:]
