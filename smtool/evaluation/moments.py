"""Moments of features in npz files: mu and sigma as pytorch-fid, clean-fid and ADM name them, mu_s and sigma_s for sFID."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from smtool import __version__
from smtool.config import Config
from smtool.errors import DataError
from smtool.features.extractor import Extractor, View
from smtool.features.protocol import Protocol
from smtool.metrics.frechet import FeatureStats
from smtool.storage import replacing

KEYS: dict[View, tuple[str, str]] = {"pooled": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
FACTS = "smtool"


class Described(Config):
    """Of which features moments are, and by which protocol; count: images; images: their digest."""

    extractor: str
    weights: str
    resize: str
    offset: float
    codec: str
    smtool: str
    protocol: str
    count: int
    images: str


@dataclass(frozen=True)
class Moments:
    """stats: by view. described: as our own files say; None for those of other tools, which are taken for the published
    Inception's, of an unknown number of images resized in an unknown way.
    """

    stats: Mapping[View, FeatureStats]
    described: Described | None

    @property
    def count(self) -> int | None:
        """Images they are of."""
        return self.described.count if self.described else None

    @property
    def description(self) -> str:
        if self.described is None:
            return "published Inception features, for --protocol adm or paper, whichever they were made by"
        return f"{self.described.extractor} features by protocol {self.described.protocol}"

    def comparable(self, extractor: Extractor, protocol: Protocol) -> Mapping[View, FeatureStats]:
        """Those that an extractor's features may be held against under a protocol."""
        if self.described is None:
            return self.stats if extractor.is_published_inception and protocol.name != "clean" else {}
        same = all(getattr(self.described, key) == value for key, value in judge_summary(extractor, protocol).items())
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
    """Of an npz file; None if it has none. Raises DataError if a file of ours does not say of which features they are."""
    with np.load(path) as arrays:
        try:
            described = Described.model_validate_json(str(arrays[FACTS])) if FACTS in arrays else None
        except ValidationError as error:
            problem = f"{path} does not say of which features its moments are: {str(error).splitlines()[0]}."
            raise DataError(problem, hint="Write it again with --save-reference.") from error
        stats = {}
        for view, names in KEYS.items():
            if set(names) <= set(arrays.files):
                mean, covariance = (torch.from_numpy(arrays[name]) for name in names)
                stats[view] = FeatureStats.given(mean, covariance, count=described.count if described else None)
    return Moments(stats, described) if stats else None


def write_moments(
    path: Path, stats: Mapping[View, FeatureStats], extractor: Extractor, protocol: Protocol, *, count: int, images_sha256: str
) -> None:
    """float64 moments that other tools read by their keys, and beside them what they are of, which `read_moments` checks."""
    described = Described(
        **judge_summary(extractor, protocol), smtool=__version__, protocol=protocol.name, count=count, images=images_sha256
    )
    arrays = {FACTS: np.array(json.dumps(described.model_dump(mode="json")))}
    for view, moments in stats.items():
        mean, covariance = KEYS[view]
        arrays |= {mean: moments.mean.cpu().numpy(), covariance: moments.covariance.cpu().numpy()}
    with replacing(path) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
