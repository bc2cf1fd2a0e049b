"""`smtool eval` of generated images: samples drawn from a diffusion checkpoint, or images in files."""

from pathlib import Path
from typing import Any

from smtool import __version__
from smtool.checkpoints.diffusion import is_diffusion, read_diffusion_metadata
from smtool.commands.evaluate.record import leave
from smtool.commands.evaluate.result import Reference, SampleEvaluation, Samples, computation
from smtool.commands.sample.samples import changed_sampler, refuse_alpha
from smtool.errors import DataError, RecipeError
from smtool.evaluation.comparison import Comparison, Side
from smtool.evaluation.generation_judges import build_questions
from smtool.evaluation.generation_scores import generation_scores
from smtool.evaluation.image_sources import ImageSource, drawn_source, open_source
from smtool.evaluation.options import EvalOptions
from smtool.evaluation.partiality import lessons_of_decoder, lessons_of_guide, lessons_of_transformer, partial_judges
from smtool.evaluation.references import MOST_IMAGES, Reading, find_reference, reference_side, save_reference, saved_judge
from smtool.features.pictures import ALPHA
from smtool.inference.diffusion_model import in_tiles, read_diffusion
from smtool.inference.guide import guided_by
from smtool.networks.compiling import blocks_of, compile_each
from smtool.report.console import Console
from smtool.storage import printable
from smtool.training.distributed import Ranks, first_rank_ahead

FEWEST_IMAGES = 10


def evaluate_generations(what: Path, options: EvalOptions, *, ranks: Ranks, console: Console) -> SampleEvaluation | None:
    """Score a checkpoint of train-dit, or images in a folder, archive or npz, against real images, and print a table.

    By default, compute only scores that need no downloaded weights. The real images are options.reference, else the training
    images of the checkpoint. Ranks share the passes over images; all but the first return None.
    """
    rules = options.rules
    questions = build_questions(options.scores, options.features, rules, weights_dir=options.weights_dir)
    if options.infinity and not any(question.kinds & {"frechet", "spatial"} for question in questions):
        raise RecipeError("--infinity has no effect without a Frechet distance.", hint="Add --fid or --features NAME.")
    for question in questions:
        question.extractor.to(options.device)
    stored = None if is_diffusion(what) else open_source(str(what))
    metadata = _metadata(what, stored)
    with first_rank_ahead(ranks):
        real = find_reference(what, stored, metadata, options.reference, questions)
    if stored and real and real.channels in ALPHA and not stored.sampling.known:
        stored = open_source(str(what), channels=real.channels)      # alpha of both is composited in the same way
    samples, count = _samples(what, stored, options, real)
    _check(samples, count, real)
    judge = saved_judge(options, real, questions)
    reading = Reading(console, options, ranks)
    fixed = reference_side(real, questions, reading)
    found = reading.table(samples, [item for question in questions for item in question.wanted], count)
    if not ranks.first:
        return None
    if options.save_reference is not None and judge is not None:
        save_reference(options.save_reference, fixed, judge, rules)
        console.print(f"{options.save_reference}: moments of {judge.name} features of {fixed.count:,} images")
    comparison = Comparison(
        Side(samples.digest, count, found, sizes=samples.sizes_of(count), channels=samples.channels),
        fixed,
        rules,
        samples.sampling,
        options.seed,
        options.device if options.device.startswith("cuda") else "cpu",
        options.infinity,
    )
    names = [question.extractor.name for question in questions]
    drawn = samples.sampling
    lessons = {**lessons_of_transformer(metadata), **lessons_of_decoder(drawn.decoder), **lessons_of_guide(drawn.guide)}
    notes = partial_judges(dict(zip(names, names, strict=True)), lessons)
    ranked = [
        score
        for question in questions
        for score in generation_scores(comparison, question, notes.get(question.extractor.name))
    ]
    evaluation = SampleEvaluation(
        smtool=__version__,
        samples=Samples(**_described(samples), count=count, drawn=samples.sampling),
        reference=None if real is None else Reference(**_described(real), count=fixed.count),
        image_size=tuple(samples.side or ()),
        computed=computation(options.device),
        scores={score.name: score for score in ranked},
    )
    leave(evaluation, options, title=_title(samples, count, real), console=console)
    return evaluation


def _described(images: ImageSource) -> dict[str, Any]:
    return {
        "source": printable(images.name),
        "sha256": images.digest,
        "remarks": images.remarks,
        "left_out": images.left_out,
    }


def _metadata(what: Path, stored: ImageSource | None) -> dict[str, Any]:
    """Metadata of the checkpoint; of a folder of samples, that of the checkpoint beside it that drew them; else {}."""
    if stored is None:
        return read_diffusion_metadata(what)
    beside = what.parent / "ckpt.safetensors"
    if stored.sampling.checkpoint is None or not is_diffusion(beside):
        return {}
    metadata = read_diffusion_metadata(beside)
    return metadata if metadata["digest"] == stored.sampling.checkpoint else {}


def _samples(
    what: Path, stored: ImageSource | None, options: EvalOptions, real: ImageSource | None
) -> tuple[ImageSource, int]:
    """The images to score and their number: --num-images, else as many as there are (real images, for drawn samples), at most
    50,000."""
    if stored is None:
        count = options.num_images or min(MOST_IMAGES, (real.count if real else 0) or MOST_IMAGES)
        model = in_tiles(read_diffusion(what, options.device), options.tile)
        if options.guide is not None:
            model = guided_by(model, options.guide, device=options.device)
        sampler = changed_sampler(model, options.changes, options.device)
        if options.compiled:
            compile_each(blocks_of(model.network))
        if options.jpeg is not None:
            refuse_alpha(model, f"jpeg:{options.jpeg}")
        source = drawn_source(
            what,
            model,
            sampler,
            count=count,
            labels=options.labels,
            seed=options.seed,
            rounding=options.rules.rounding,
            device=options.device,
            tile=options.tile,
            jpeg=options.jpeg,
        )
        return source, count
    if options.tile is not None:
        raise RecipeError(f"{what} holds finished images: --tile has no effect on them.")
    if options.draws:
        raise RecipeError(
            f"{what} holds finished images: options of the sampler, --guide, --labels and --format have no effect on them."
        )
    options.check_number(stored.count, str(what))
    return stored, min(options.num_images or MOST_IMAGES, stored.count)


def _check(samples: ImageSource, count: int, real: ImageSource | None) -> None:
    """Raise DataError if either side has too few images."""
    found = [(samples, count)]
    if real is not None and not (real.count == 0 and real.moments):
        found.append((real, real.count))
    for source, number in found:
        if number < FEWEST_IMAGES:
            raise DataError(
                f"{source.name}: {number} images are too few to compare distributions; at least {FEWEST_IMAGES} are needed.",
                hint="A reliable Frechet distance needs more images than features: 65 for random, 2,049 for Inception.",
            )


def _title(samples: ImageSource, count: int, real: ImageSource | None) -> str:
    """Title of the table: names of samples and reference, with the number of images used."""
    against = f" against {_part(min(real.count, MOST_IMAGES), real.count)} {real.name}" if real is not None and real.count else ""
    return f"{samples.name}: {_part(count, samples.count)}{against}"


def _part(count: int, available: int) -> str:
    return f"{count:,}" if count == available else f"{count:,} of {available:,}"
