import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from smtool.datasets import open_images
from smtool.datasets.types import to_uint8
from smtool.errors import DataError
from smtool.features.extractor import load_extractor
from smtool.pipelines.generation_scores import quick_distances
from smtool.randomness import generator


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return open_images("builtin:photos?train=80&val=4", "train", image_size=32, root=root)


def noise(count, key="samples"):
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator(key))


def frechet(x, y):
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = x.mean(0) - y.mean(0)
    return shift @ shift + np.trace(a) + np.trace(b) - 2 * np.trace(scipy.linalg.sqrtm(a @ b).real)


def test_quick_distances_are_those_of_scipy_and_torch_fidelity(reference):
    found = quick_distances(noise(80), reference, features="random", num_images=80)
    extractor = load_extractor("random")
    x, y = (extractor(images).double() for images in (noise(80), to_uint8(reference.read(range(80)).images)))
    assert list(found) == ["fd_random", "kid_random"]
    assert found["fd_random"] == pytest.approx(frechet(x.numpy(), y.numpy()), rel=1e-4)
    options = {"kid_subsets": 1, "kid_subset_size": 80, "rng_seed": 0, "verbose": False}
    assert found["kid_random"] == pytest.approx(kid_features_to_metric(x, y, **options)["kernel_inception_distance_mean"])


def test_quick_distances_take_as_many_images_as_asked(reference):
    few = quick_distances(noise(8), reference, features="random", num_images=8)
    extractor = load_extractor("random")
    y = extractor(to_uint8(reference.read(range(8)).images)).double()
    options = {"kid_subsets": 1, "kid_subset_size": 8, "rng_seed": 0, "verbose": False}
    expected = kid_features_to_metric(extractor(noise(8)).double(), y, **options)["kernel_inception_distance_mean"]
    assert few["kid_random"] == pytest.approx(expected)
    with pytest.raises(DataError, match="found 1 and 80"):
        quick_distances(noise(1), reference, features="random", num_images=8)
