"""The reference of samples: finds the images, gets their features from a pass or their moments from a file, writes such files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtool.data import open_images
from smtool.errors import CheckpointError, DataError, RecipeError
from smtool.evaluation.comparison import Side
from smtool.evaluation.feature_pass import Table, Wanted, table_of_features
from smtool.evaluation.generation_judges import ON_VECTORS, Question
from smtool.evaluation.image_sizes import described
from smtool.evaluation.image_sources import ImageSource, open_source, shards_source
from smtool.evaluation.moments import write_moments
from smtool.evaluation.options import EvalOptions
from smtool.features.extractor import Extractor, View
from smtool.features.protocol import Protocol
from smtool.image_shape import SizeLike
from smtool.metrics.frechet import FeatureStats
from smtool.report.console import Console
from smtool.training.distributed import Ranks

MOST_IMAGES = 50_000


@dataclass(frozen=True)
class Reading:
    """Reads images for all passes of one evaluation."""

    console: Console
    options: EvalOptions
    ranks: Ranks

    def table(self, source: ImageSource, wanted: Sequence[Wanted], count: int) -> Table:
        """Features of the first `count` images of a source."""
        with self.console.progress(source.name) as report:
            return table_of_features(
                source,
                wanted,
                self.options.rules,
                count=count,
                batch=self.options.batch,
                folder=self.options.features_folder,
                report=report,
                say=self.console.print,
                ranks=self.ranks,
            )


def find_reference(
    what: Path,
    stored: ImageSource | None,
    metadata: Mapping[str, Any],
    reference: str | None,
    questions: Sequence[Question],
) -> ImageSource | None:
    """The images to compare with; None if no score needs any.

    what: the scored checkpoint or samples; stored: samples from files; metadata: of the checkpoint, which names the training
    images; reference: other images to use instead.
    """
    if reference is not None:
        channels = stored.channels if stored else metadata.get("image_channels", 3)
        return open_source(reference, image_size=_size_for(reference, stored, metadata), channels=channels)
    if all(question.kinds == {"recognition"} for question in questions):
        return None
    if not metadata:
        raise RecipeError(f"{what} does not name images to compare with.", hint="Name them: --reference FOLDER")
    if missing := [key for key in ("data", "data_digest", "image_size") if key not in metadata]:
        raise CheckpointError(f"{what} does not state its training data ({missing[0]}).", hint="Pass --reference FOLDER.")
    channels = metadata.get("image_channels", 3)
    images = open_images(metadata["data"], "train", image_size=metadata["image_size"], channels=channels)
    if images.digest != metadata["data_digest"]:
        raise DataError(
            f"{images.folder} no longer holds the images that {what} was trained on: its digest differs.",
            hint=f"Prepare {metadata['data']} again, or name images to compare with: --reference FOLDER",
        )
    return shards_source(images)


def reference_side(real: ImageSource | None, questions: Sequence[Question], reading: Reading) -> Side:
    """Features and moments of the reference, as far as the questions need them. Raises DataError if moments do not suffice."""
    if real is None:
        return Side("", 0, {})
    given = {
        (question.extractor.score, view): stats
        for question in questions
        if real.moments
        for view, stats in real.moments.comparable(question.extractor, reading.options.rules).items()
    }
    known = real.moments.count if real.moments else None
    wanted = [item for question in questions for item in question.wanted if item.view != "logits"]
    wanted = [item for item in wanted if item.view == "pooled" or (item.extractor.score, item.view) not in given]
    if real.count == 0 and real.moments:
        unanswered = [item for item in wanted if (item.extractor.score, item.view) not in given]
        if unanswered or any(question.kinds & ON_VECTORS - {"frechet"} for question in questions):
            raise DataError(
                f"{real.name} holds only moments, and no images: {real.moments.description}.",
                hint="Moments are enough only for Frechet distances on the same features.",
            )
        return Side(real.digest, known or 0, {}, given, known)
    count = min(MOST_IMAGES, real.count)
    return Side(real.digest, count, reading.table(real, wanted, count), given, known, real.sizes_of(count), real.channels)


def _size_for(reference: str, stored: ImageSource | None, metadata: Mapping[str, Any]) -> SizeLike | None:
    """The size at which a built-in reference is made: that of the samples."""
    if stored is None or not stored.count:
        return metadata.get("image_size")
    if reference.startswith("builtin:") and stored.side is None:
        sizes = described(stored.sizes_of(stored.count))
        raise DataError(
            f"{reference} is made at the size of the samples, but the samples have several: {sizes}.",
            hint=f"Prepare it at one size, and pass that folder: smtool prepare {reference} --size SIZE",
        )
    return stored.side


def saved_judge(options: EvalOptions, real: ImageSource | None, questions: Sequence[Question]) -> Extractor | None:
    """The extractor whose moments of the reference are saved: one per npz file, Inception before others; None without a file.

    Raises RecipeError if there are no images, or not exactly one extractor.
    """
    if options.save_reference is None:
        return None
    if real is not None and real.count == 0:
        raise RecipeError(f"{real.name} already holds moments, and no images.", hint="Leave --save-reference out.")
    judges = [question.extractor for question in questions if question.kinds & (ON_VECTORS | {"spatial"})]
    chosen = [judge for judge in judges if judge.name == "inception"] or judges
    if real is None or len(chosen) != 1:
        what = "nothing is compared" if real is None else "of " + ", ".join(judge.name for judge in chosen)
        raise RecipeError(f"--save-reference writes moments of one extractor, but {what}.", hint="Choose one, such as --fid.")
    return chosen[0]


def save_reference(path: Path, side: Side, judge: Extractor, protocol: Protocol) -> None:
    """Write the moments of the reference in a judge's features, readable by this command and other tools."""
    views: tuple[View, ...] = ("pooled", "spatial")
    stats = {v: FeatureStats.of(side.features[judge.score, v]) for v in views if (judge.score, v) in side.features}
    write_moments(path, stats, judge, protocol, count=side.count, images_sha256=side.digest)
