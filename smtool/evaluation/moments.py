"""Moments of features in npz files: mu and sigma as in pytorch-fid, clean-fid and ADM; mu_s and sigma_s for sFID."""

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
    """The features and the protocol that moments were computed with. count: number of images; images: their digest."""

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
    """Moments read from a file. stats: by view. described: the description in files of smtool; None for files of other tools,
    which are assumed to use the published Inception, with an unknown number of images and an unknown resize.
    """

    stats: Mapping[View, FeatureStats]
    described: Described | None

    @property
    def count(self) -> int | None:
        """Number of images; None if the file does not state it."""
        return self.described.count if self.described else None

    @property
    def description(self) -> str:
        if self.described is None:
            return "published Inception features, for --protocol adm or paper, whichever they were computed with"
        return f"{self.described.extractor} features by protocol {self.described.protocol}"

    def comparable(self, extractor: Extractor, protocol: Protocol) -> Mapping[View, FeatureStats]:
        """The moments that an extractor's features may be compared with under a protocol, by view."""
        if self.described is None:
            return self.stats if extractor.is_published_inception and protocol.name != "clean" else {}
        same = all(getattr(self.described, key) == value for key, value in judge_summary(extractor, protocol).items())
        return self.stats if same else {}


def judge_summary(extractor: Extractor, protocol: Protocol) -> dict[str, Any]:
    """Everything besides its pixels that decides an image's features."""
    return {
        "extractor": extractor.name,
        "weights": extractor.digest,
        "resize": extractor.resize,
        "offset": protocol.offset,
        "codec": protocol.codec,
    }


def read_moments(path: Path) -> Moments | None:
    """Read the moments of an npz file; None if it has none. Raises DataError if the description of a smtool file is invalid."""
    with np.load(path) as arrays:
        try:
            described = Described.model_validate_json(str(arrays[FACTS])) if FACTS in arrays else None
        except ValidationError as error:
            problem = f"{path} has no valid description of the features of its moments: {str(error).splitlines()[0]}."
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
    """Write float64 moments under the keys that other tools read, with a description that `read_moments` checks."""
    described = Described(
        **judge_summary(extractor, protocol), smtool=__version__, protocol=protocol.name, count=count, images=images_sha256
    )
    arrays = {FACTS: np.array(json.dumps(described.model_dump(mode="json")))}
    for view, moments in stats.items():
        mean, covariance = KEYS[view]
        arrays |= {mean: moments.mean.cpu().numpy(), covariance: moments.covariance.cpu().numpy()}
    with replacing(path) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
