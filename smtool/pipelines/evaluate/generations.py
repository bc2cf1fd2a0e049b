"""`smtool eval` of generated images: those of a diffusion checkpoint, drawn on the way, or those in files."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smtool import __version__
from smtool.datasets import open_images
from smtool.errors import CheckpointError, DataError, RecipeError
from smtool.features.extractor import View
from smtool.features.protocol import PROTOCOLS, Protocol, ProtocolName
from smtool.metrics.frechet import FeatureStats
from smtool.pipelines.evaluate.feature_pass import FEATURES_FOLDER, Table, Wanted, table_of_features
from smtool.pipelines.evaluate.generation_judges import Question, build_questions, partial_judges
from smtool.pipelines.evaluate.generation_scores import Comparison, Side
from smtool.pipelines.evaluate.image_sources import ImageSource, drawn_source, open_source, shards_source
from smtool.pipelines.evaluate.scores import Score, score_table
from smtool.pipelines.sample.samples import changed_sampler
from smtool.pipelines.train.diffusion_checkpoint import is_diffusion, read_diffusion
from smtool.report.console import Console
from smtool.storage import read_metadata, write_json

MOST_IMAGES = 50_000
FEWEST_IMAGES = 10


@dataclass(frozen=True)
class Drawing:
    """How a checkpoint is sampled: keys of its sampler to set (kind, steps, cfg_scale, cfg_interval ...), classes, seed."""

    changes: Mapping[str, Any]
    labels: str = "balanced"
    seed: int = 0


def evaluate_generations(
    what: Path,
    *,
    console: Console,
    scores: Collection[str] = (),
    features: Sequence[str] = (),
    reference: str | None = None,
    num_images: int | None = None,
    protocol: ProtocolName = "clean",
    drawing: Drawing | None = None,
    json_path: Path | None = None,
    batch: int = 32,
    device: str = "cpu",
    weights_dir: Path | None = None,
    folder: Path | None = FEATURES_FOLDER,
) -> dict[str, Any]:
    """Score a checkpoint of train-dit, or images in a folder, archive or npz, against real images, and show a table.

    scores: of generation_judges.GENERATION_SCORES; features: extractors; with neither, what needs no weights. reference: the
    training images of the checkpoint unless given. folder: where features are kept, None for nowhere. Returns what is written
    to json_path.
    """
    rules, drawing = PROTOCOLS[protocol], drawing or Drawing({})
    questions = build_questions(scores, features, rules, weights_dir=weights_dir)
    for question in questions:
        question.extractor.to(device)
    stored = None if is_diffusion(what) else open_source(str(what))
    metadata = _metadata(what, stored)
    real = _reference(what, stored, metadata, reference, questions)
    samples, count = _samples(what, stored, drawing, real, num_images, device)
    _check(samples, count, real)
    reading = _Reading(console, rules, batch, folder)
    fixed = _reference_side(real, questions, reading)
    found = reading.table(samples, [item for question in questions for item in question.wanted], count)
    comparison = Comparison(
        Side(samples.digest, count, found),
        fixed,
        rules,
        samples.sampling,
        drawing.seed,
        device if device.startswith("cuda") else "cpu",
    )
    notes = partial_judges(questions, metadata.get("recipe") or {}, _autoencoder_recipe(metadata))
    ranked = [score for question in questions for score in comparison.scores(question, notes.get(question.extractor.name))]
    result = {
        "smtool": __version__,
        "samples": {"source": samples.name, "sha256": samples.digest, "count": count, "drawn": dict(samples.sampling)},
        "reference": None if real is None else {"source": real.name, "sha256": real.digest, "count": fixed.count},
        "scores": {score.name: score.to_json() for score in ranked},
    }
    _show(console, samples, real, ranked, rules)
    if json_path is not None:
        write_json(json_path, result)
    return result


@dataclass(frozen=True)
class _Reading:
    """How all passes of one evaluation read images."""

    console: Console
    protocol: Protocol
    batch: int
    folder: Path | None

    def table(self, source: ImageSource, wanted: Sequence[Wanted], count: int) -> Table:
        with self.console.progress(source.name) as report:
            return table_of_features(
                source,
                wanted,
                self.protocol,
                count=count,
                batch=self.batch,
                folder=self.folder,
                report=report,
                say=self.console.print,
            )


def _metadata(what: Path, stored: ImageSource | None) -> dict[str, Any]:
    """Of the checkpoint, or of the one beside a folder of samples that were drawn from it; {} where there is none."""
    if stored is None:
        return read_metadata(what)
    beside = what.parent / "ckpt.safetensors"
    if not stored.sampling or not is_diffusion(beside):
        return {}
    metadata = read_metadata(beside)
    return metadata if metadata["digest"] == stored.sampling["checkpoint"] else {}


def _reference(
    what: Path,
    stored: ImageSource | None,
    metadata: Mapping[str, Any],
    reference: str | None,
    questions: Sequence[Question],
) -> ImageSource | None:
    """The images to compare with; None where nothing asks for any."""
    if reference is not None:
        side = stored.side if stored else None
        return open_source(reference, image_size=side[0] if side else metadata.get("image_size"))
    if all(question.kinds == {"recognition"} for question in questions):
        return None
    if not metadata:
        raise RecipeError(f"{what} does not say which images it should be like.", hint="Name some: --reference FOLDER")
    if missing := [key for key in ("data", "data_digest", "image_size") if key not in metadata]:
        raise CheckpointError(f"{what} does not say what it was trained on ({missing[0]}).", hint="Pass --reference FOLDER.")
    images = open_images(metadata["data"], "train", image_size=metadata["image_size"])
    if images.digest != metadata["data_digest"]:
        raise DataError(
            f"{images.folder} no longer holds the images that {what} was trained on: its digest differs.",
            hint=f"Prepare {metadata['data']} again, or say what to compare with: --reference FOLDER",
        )
    return shards_source(images)


def _samples(
    what: Path,
    stored: ImageSource | None,
    drawing: Drawing,
    real: ImageSource | None,
    num_images: int | None,
    device: str,
) -> tuple[ImageSource, int]:
    """The images to score, and how many of them: as many as asked, or as there are real ones, at most 50,000."""
    if stored is None:
        count = num_images or min(MOST_IMAGES, (real.count if real else 0) or MOST_IMAGES)
        model = read_diffusion(what, device)
        sampler = changed_sampler(model, drawing.changes)
        source = drawn_source(what, model, sampler, count=count, labels=drawing.labels, seed=drawing.seed, device=device)
        return source, count
    if drawing.changes or drawing.labels != "balanced":
        raise RecipeError(f"{what} holds images that are drawn already: no sampler or classes can be chosen for them.")
    return stored, min(num_images or MOST_IMAGES, stored.count)


def _check(samples: ImageSource, count: int, real: ImageSource | None) -> None:
    """Enough images of one size on both sides."""
    found = [(samples, count)]
    if real is not None and not (real.count == 0 and real.statistics):
        found.append((real, real.count))
    for source, number in found:
        if number < FEWEST_IMAGES:
            raise DataError(
                f"{source.name}: {number} images are too few to compare distributions by: at least {FEWEST_IMAGES} are needed.",
                hint="A Frechet distance is reliable from more images than features: 65 for random, 2,049 for Inception.",
            )
    if real is not None and real.side is not None and real.side != samples.side:
        sides = " and ".join(f"{source.name} {source.side[1]}x{source.side[0]}" for source in (samples, real) if source.side)
        raise DataError(
            f"samples and reference differ in size: {sides} px.",
            hint=f"Prepare the reference at that size: smtool prepare SOURCE --size {min(samples.side or real.side)}",
        )


def _reference_side(real: ImageSource | None, questions: Sequence[Question], reading: _Reading) -> Side:
    if real is None:
        return Side("", 0, {})
    statistics = _usable_statistics(real, questions, reading.protocol)
    wanted = [item for question in questions for item in question.wanted if item.view != "logits"]
    wanted = [item for item in wanted if item.view == "pooled" or item.view not in statistics]
    if real.count == 0:
        unanswered = [item for item in wanted if not item.extractor.is_published_inception or item.view not in statistics]
        if unanswered or any(question.kinds & {"kernel", "manifold"} for question in questions):
            raise DataError(
                f"{real.name} holds statistics of published Inception features only, and no images.",
                hint="It serves for --fid and --sfid with --protocol adm or paper, whichever it was made by.",
            )
        return Side(real.digest, 0, {}, statistics)
    count = min(MOST_IMAGES, real.count)
    return Side(real.digest, count, reading.table(real, wanted, count), statistics)


def _usable_statistics(
    real: ImageSource, questions: Sequence[Question], protocol: Protocol
) -> Mapping[View, FeatureStats]:
    """A file's moments, where the published Inception is asked and by a resize such files may have been made with."""
    published = any(question.extractor.is_published_inception for question in questions)
    return real.statistics if published and protocol.name != "clean" else {}


def _autoencoder_recipe(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe of the autoencoder that a transformer's checkpoint names, if its file is still there."""
    path = Path(metadata.get("autoencoder_path", ""))
    return read_metadata(path).get("recipe") or {} if path.is_file() else {}


def _show(
    console: Console, samples: ImageSource, real: ImageSource | None, scores: Sequence[Score], protocol: Protocol
) -> None:
    against = f" against {min(real.count, MOST_IMAGES):,} {real.name}" if real is not None and real.count else ""
    console.print(score_table(scores, f"{samples.name}: {scores[0].passport.num_images:,}{against}"))
    if drawn := samples.sampling:
        sampler = drawn["sampler"]
        guidance = f"guidance {sampler['cfg_scale']:g}" if sampler["cfg_scale"] != 1 else "no guidance"
        weights = f"{drawn['weights']} weights of step {drawn['step']:,}"
        console.print(f"Drawn by {sampler['kind']}, {sampler['steps']} steps, {guidance}, {weights}, seed {drawn['seed']}.")
    console.print(f"Protocol {protocol.name}. Intervals: how another draw of samples would scatter, the reference as it is.")
    if any(score.passport.metric == "frechet distance" for score in scores):
        console.print(
            "Frechet distances are too large at finite N, and fall as it grows: compare them at equal N, reference and extractor"
            " only. Kernel distances have no such bias."
        )
