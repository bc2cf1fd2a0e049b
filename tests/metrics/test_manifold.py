import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from smtool.metrics import manifold
from smtool.metrics.manifold import density_coverage, precision_recall
from smtool.randomness import generator


def features(count, dim=6, shift=0.0, key="x"):
    return torch.randn(count, dim, generator=generator(key), dtype=torch.float64) + shift


def kth_nearest(points, k):
    rows = [sorted(float(np.linalg.norm(p - q)) for j, q in enumerate(points) if j != i) for i, p in enumerate(points)]
    return [row[k - 1] for row in rows]


def distances(samples, images):
    return [[float(np.linalg.norm(s - x)) for x in images] for s in samples]


@pytest.mark.parametrize("rows", [5, 1024])
def test_precision_and_recall_equal_torch_fidelitys(rows, monkeypatch):
    monkeypatch.setattr(manifold, "_ROWS", rows)
    samples, images = features(70), 1.3 * features(90, shift=0.4, key="y")
    found = precision_recall(samples, images)
    options = {"prc_neighborhood": 3, "prc_batch_size": 40, "save_cpu_ram": False, "verbose": False}
    expected = prc_features_to_metric(samples, images, **options)
    assert 0.1 < expected["precision"] != expected["recall"] < 0.9
    # torch-fidelity averages in float32
    assert (found.precision, found.recall) == pytest.approx((expected["precision"], expected["recall"]), rel=1e-6)


def test_density_and_coverage_equal_a_double_loop():
    samples, images = features(40), 1.3 * features(50, shift=0.4, key="y")
    radii, table = kth_nearest(images.numpy(), 5), distances(samples.numpy(), images.numpy())
    counts = [sum(d < r for d, r in zip(row, radii, strict=True)) / 5 for row in table]
    covered = [any(row[j] < radii[j] for row in table) for j in range(50)]
    found = density_coverage(samples, images)
    assert found.density == pytest.approx(np.mean(counts), rel=1e-9)
    assert found.coverage == pytest.approx(np.mean(covered), rel=1e-9)
    assert 0 < found.coverage < 1


def test_samples_of_one_mode_have_high_precision_and_low_recall():
    """Guards against swapped precision and recall, as happened in torch-fidelity (issue 58)."""
    near, far = features(60, key="near"), features(60, shift=50.0, key="far")
    samples = features(60, key="samples")
    found = precision_recall(samples, torch.cat([near, far]))
    assert found.precision > 0.8
    assert found.recall < 0.55      # no sample is near the second half
    other_way = precision_recall(torch.cat([near, far]), samples)
    assert other_way.precision < 0.55 and other_way.recall > 0.8
    dense = density_coverage(samples, torch.cat([near, far]))
    assert dense.density > 0.7 and 0.4 < dense.coverage < 0.55


def test_one_outlier_raises_recall_but_not_coverage():
    images = features(100, key="y")
    samples = torch.cat([features(10, key="cluster") * 0.1 - 20.0, torch.full((1, 6), 20.0, dtype=torch.float64)])
    found = precision_recall(samples, images)
    assert (found.precision, found.recall) == (0.0, 1.0)      # the outlier's ball reaches the cluster and contains all images
    assert density_coverage(samples, images).coverage == 0.0


def test_copies_of_images_are_on_the_surface_of_balls():
    images = features(20, key="y").repeat_interleave(4, 0)      # three copies each: closed balls of radius 0
    assert precision_recall(images, images).precision == 1.0
    assert density_coverage(images, images, neighbours=3).coverage == 0.0      # open balls of radius 0 are empty


def test_too_few_vectors_are_refused():
    with pytest.raises(ValueError, match="3 nearest neighbours need at least 4 of each, found 3 samples and 9 images"):
        precision_recall(features(3), features(9))
    with pytest.raises(ValueError, match="at least 6 of each"):
        density_coverage(features(9), features(5))
    with pytest.raises(ValueError, match="6 and of 4 dimensions"):
        precision_recall(features(9), features(9, dim=4))
