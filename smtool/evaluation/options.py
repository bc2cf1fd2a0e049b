"""Options of `smtool eval`, for reconstructions and for samples."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smtool.errors import DataError
from smtool.evaluation.feature_pass import FEATURES_FOLDER
from smtool.features.protocol import PROTOCOLS, Protocol, ProtocolName


@dataclass(frozen=True)
class EvalOptions:
    """All options of one evaluation.

    scores: names of judges.SCORES for reconstructions, of generation_judges.GENERATION_SCORES for samples; features: extractors
    of further Frechet distances. By default, compute only scores that need no downloaded weights. infinity: also extrapolate
    Frechet distances of samples to N = infinity. reference: images to compare with, instead of the inputs or the training images;
    save_reference: file to write its moments to. data: images to reconstruct, instead of the validation split of the checkpoint's
    recipe. labels, changes, guide: classes, sampler settings and guiding transformer for sampling a transformer. seed: of
    samples, posterior samples and the bootstrap. num_images: None for all available images, at most 50,000. table_path: of a
    Markdown or CSV file, by its suffix. features_folder: cache of features of samples and reference, None for no cache. tile:
    side in pixels of overlapping tiles that are encoded and decoded one at a time, None for whole images. jpeg: quality at which
    drawn samples are coded before they are scored, None for no codec. compiled: compile a sampled transformer with torch.compile.
    """

    scores: Collection[str] = ()
    features: Sequence[str] = ()
    infinity: bool = False
    reference: str | None = None
    save_reference: Path | None = None
    data: str | None = None
    num_images: int | None = None
    protocol: ProtocolName = "clean"
    labels: str = "balanced"
    changes: Mapping[str, Any] = field(default_factory=dict)
    guide: str | None = None
    seed: int = 0
    batch: int = 32
    device: str = "cpu"
    weights_dir: Path | None = None
    json_path: Path | None = None
    table_path: Path | None = None
    features_folder: Path | None = FEATURES_FOLDER
    tile: int | None = None
    jpeg: int | None = None
    compiled: bool = False

    @property
    def rules(self) -> Protocol:
        return PROTOCOLS[self.protocol]

    @property
    def draws(self) -> bool:
        """Whether any option concerns sampling."""
        asked = bool(self.changes) or self.labels != "balanced" or self.compiled
        return asked or self.jpeg is not None or self.guide is not None

    def check_number(self, available: int, where: str) -> None:
        """Raise DataError if fewer images are available than requested. where: their source, for the message."""
        if self.num_images is not None and self.num_images > available:
            raise DataError(
                f"--num-images {self.num_images:,}: {where} holds only {available:,} images.",
                hint="Leave --num-images out to use all of them.",
            )
