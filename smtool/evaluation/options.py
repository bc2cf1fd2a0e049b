"""What `smtool eval` is asked, whatever it scores."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smtool.errors import DataError
from smtool.evaluation.feature_pass import FEATURES_FOLDER
from smtool.features.protocol import PROTOCOLS, Protocol, ProtocolName


@dataclass(frozen=True)
class EvalOptions:
    """Every option of one evaluation.

    scores: of judges.SCORES for reconstructions, of generation_judges.GENERATION_SCORES for samples; features: extractors of
    further Frechet distances; with neither, what needs no weights. infinity: extrapolate Frechet distances of samples too.
    reference: images to compare with, instead of the inputs or the training images; save_reference: where to write its
    moments. data: images to reconstruct, instead of the validation split of the checkpoint's recipe. labels, changes: how a
    transformer is sampled: classes, and keys of its sampler to set. seed: of samples, posterior samples and the bootstrap.
    num_images: None for the smaller of 50,000 and what there is. table_path: of Markdown or CSV, by its ending.
    features_folder: where features of samples and reference are kept, None: nowhere.
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
    seed: int = 0
    batch: int = 32
    device: str = "cpu"
    weights_dir: Path | None = None
    json_path: Path | None = None
    table_path: Path | None = None
    features_folder: Path | None = FEATURES_FOLDER

    @property
    def rules(self) -> Protocol:
        return PROTOCOLS[self.protocol]

    @property
    def draws(self) -> bool:
        """Whether anything is asked of a sampler."""
        return bool(self.changes) or self.labels != "balanced"

    def check_number(self, available: int, where: str) -> None:
        """A score of fewer images than were asked for would go by a wrong name."""
        if self.num_images is not None and self.num_images > available:
            raise DataError(
                f"--num-images {self.num_images:,}: {where} holds {available:,} images only.",
                hint="Leave --num-images out to take all of them.",
            )
