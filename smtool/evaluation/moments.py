"""Moments of features in npz files: mu and sigma as pytorch-fid, clean-fid and ADM name them, mu_s and sigma_s for sFID."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smtool import __version__
from smtool.features.extractor import Extractor, View
from smtool.features.protocol import Protocol
from smtool.metrics.frechet import FeatureStats
from smtool.storage import replacing

KEYS: dict[View, tuple[str, str]] = {"pooled": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
FACTS = "smtool"


@dataclass(frozen=True)
class Moments:
    """stats: by view. summary: of which features they are, as our own files say; {} for those of other tools, which are taken for
    the published Inception's, of an unknown number of images resized in an unknown way.
    """

    stats: Mapping[View, FeatureStats]
    summary: Mapping[str, Any]

    @property
    def count(self) -> int | None:
        """Images they are of."""
        return self.summary.get("count")

    @property
    def description(self) -> str:
        if not self.summary:
            return "published Inception features, for --protocol adm or paper, whichever they were made by"
        return f"{self.summary['extractor']} features by protocol {self.summary['protocol']}"

    def comparable(self, extractor: Extractor, protocol: Protocol) -> Mapping[View, FeatureStats]:
        """Those that an extractor's features may be held against under a protocol."""
        if not self.summary:
            return self.stats if extractor.is_published_inception and protocol.name != "clean" else {}
        same = all(self.summary.get(key) == value for key, value in judge_summary(extractor, protocol).items())
        return self.stats if same else {}


def judge_summary(extractor: Extractor, protocol: Protocol) -> dict[str, Any]:
    """What decides an image's features."""
    return {
        "extractor": extractor.name,
        "weights": extractor.digest,
        "resize": extractor.resize,
        "offset": protocol.offset,
        "codec": protocol.codec,
    }


def read_moments(path: Path) -> Moments | None:
    """Of an npz file; None if it has none."""
    with np.load(path) as arrays:
        stated = json.loads(str(arrays[FACTS])) if FACTS in arrays else {}
        stats = {}
        for view, names in KEYS.items():
            if set(names) <= set(arrays.files):
                mean, covariance = (torch.from_numpy(arrays[name]) for name in names)
                stats[view] = FeatureStats.given(mean, covariance, count=stated.get("count"))
    return Moments(stats, stated) if stats else None


def write_moments(
    path: Path, stats: Mapping[View, FeatureStats], extractor: Extractor, protocol: Protocol, *, count: int, images_sha256: str
) -> None:
    """float64 moments that other tools read by their keys, and beside them what they are of, which `read_moments` checks."""
    summary = {
        **judge_summary(extractor, protocol),
        "smtool": __version__,
        "protocol": protocol.name,
        "count": count,
        "images": images_sha256,
    }
    arrays = {FACTS: np.array(json.dumps(summary))}
    for view, moments in stats.items():
        mean, covariance = KEYS[view]
        arrays |= {mean: moments.mean.cpu().numpy(), covariance: moments.covariance.cpu().numpy()}
    with replacing(path) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
