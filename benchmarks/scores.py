"""Cost of scores: the Frechet distance compared with scipy's matrix square root, the feature pass with clean-fid's.

Both feature passes read the same PNG files, resize them by clean-fid's rule and run the same network.
"""

import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from cleanfid.fid import get_folder_features
from PIL import Image
from torchvision.models import squeezenet1_1

from benchmarks import Row, race
from smtool.evaluation.image_sources import open_source
from smtool.features.extractor import Extractor
from smtool.features.weights import IMAGENET_MEAN, IMAGENET_STD
from smtool.metrics.frechet import FeatureStats, frechet_distance

DIM, SAMPLES = 1024, 2048
NUM_IMAGES, SIDE = 96, 256


def run() -> list[Row]:
    return [_frechet(), _feature_pass()]


def _frechet() -> Row:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(DIM, DIM, generator=generator) / DIM**0.5
    a, b = (FeatureStats.of(torch.randn(SAMPLES, DIM, generator=generator) @ mixing + shift) for shift in (0.0, 0.1))
    times = race({"ours": lambda: frechet_distance(a, b), "scipy": lambda: _by_square_root(a, b)}, repeats=2, warmup=0)
    assert abs(frechet_distance(a, b) / _by_square_root(a, b) - 1) < 1e-6
    return Row(f"Frechet distance of {DIM} features", times["ours"], "ms", times["scipy"], "scipy.linalg.sqrtm", aim=6)


def _by_square_root(a: FeatureStats, b: FeatureStats) -> float:
    x, y = a.covariance.numpy(), b.covariance.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = scipy.linalg.sqrtm(x @ y)
    return float((a.mean - b.mean).square().sum() + np.trace(x) + np.trace(y) - 2 * np.trace(root.real))


def _feature_pass() -> Row:
    torch.manual_seed(0)
    network = torch.nn.Sequential(squeezenet1_1(weights=None).features, torch.nn.AdaptiveAvgPool2d(1)).eval()
    facts = {"name": "random squeezenet", "digest": "", "dim": 512, "size": 299, "resize": "bicubic-antialias"}
    extractor = Extractor(network, mean=IMAGENET_MEAN, std=IMAGENET_STD, **facts)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with tempfile.TemporaryDirectory() as folder:
        _write_images(Path(folder))
        times = {
            "ours": _seconds(lambda: _ours(folder, extractor)),
            "clean-fid": _seconds(lambda: _clean_fid(folder, lambda x: network((x - mean) / std).flatten(1))),
        }
    return Row(f"features of {NUM_IMAGES} PNG files", times["ours"], "s", times["clean-fid"], "clean-fid, same network")


def _ours(folder: str, extractor: Extractor) -> torch.Tensor:
    return torch.cat([extractor(images) for images in open_source(folder).read(range(NUM_IMAGES), 32)])


def _clean_fid(folder: str, model: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        options = {"num_workers": 2, "batch_size": 32, "device": torch.device("cpu"), "mode": "clean", "verbose": False}
        return get_folder_features(folder, model, **options)


def _seconds(work: Callable[[], object]) -> float:
    """Seconds of the fastest of three passes."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(NUM_IMAGES):
        coarse = rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / f"{index:04d}.png")
