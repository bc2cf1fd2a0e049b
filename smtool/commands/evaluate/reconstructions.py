"""`smtool eval` of an autoencoder: scores of its reconstructions against their inputs or other images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smtool import __version__
from smtool.commands.evaluate.record import leave
from smtool.commands.evaluate.result import Checkpoint, Images, Reconstructed, ReconstructionEvaluation, computation
from smtool.commands.train.validate import open_validation
from smtool.data import ImageShards
from smtool.data.images.card import is_prepared, read_card
from smtool.data.images.open import known_channels
from smtool.errors import CheckpointError, DataError, RecipeError
from smtool.evaluation.judges import Judges, build_judges
from smtool.evaluation.options import EvalOptions
from smtool.evaluation.partiality import lessons_of_autoencoder, partial_judges
from smtool.evaluation.reconstruction_pass import SharedReading
from smtool.evaluation.reconstruction_scores import Origin, reconstruction_scores
from smtool.evaluation.references import MOST_IMAGES
from smtool.evaluation.scores import ReconstructionScore
from smtool.image_shape import SizeLike
from smtool.inference.tile_advice import advising_tiles
from smtool.networks.tokenizer import Tokenizer
from smtool.recipe import Data
from smtool.recipe.problems import validation_problems
from smtool.report.console import Console
from smtool.tokenizers import Found, open_tokenizer
from smtool.tokenizers.tiled import tiled
from smtool.training.distributed import Ranks, first_rank_ahead

_PASS_SOME = "Pass some: --data FOLDER"


def evaluate_reconstructions(
    found: Found, options: EvalOptions, *, ranks: Ranks, console: Console
) -> ReconstructionEvaluation | None:
    """Score a tokenizer's reconstructions and print a table.

    By default, compute only scores that need no downloaded weights. Returns None on all ranks but the first.
    """
    path = found.place
    _refuse_what_samples_are_asked(path, options)
    metadata = _metadata(found)
    judges = build_judges(options.scores, options.features, options.rules, weights_dir=options.weights_dir).to(options.device)
    if options.reference is not None and not judges.extractors:
        raise RecipeError("--reference has no effect without a Frechet distance.", hint="Add --fid or --features NAME.")
    named = _named_images(path, metadata, options.data)
    opened = open_tokenizer(
        path,
        device=options.device,
        image_size=named.image_size,
        image_channels=known_channels(named.validation or named.train),
        weights_dir=options.weights_dir,
    )
    with first_rank_ahead(ranks):
        images = open_validation(named, opened.image_channels)
        others = None if options.reference is None else _reference(options.reference, images)
    options.check_number(len(images), str(images.folder))
    autoencoder = tiled(opened, options.tile)
    if not autoencoder.can_decode:
        raise CheckpointError(f"{path} has no decoder and cannot reconstruct.", hint="`smtool spectrum` measures its latents.")
    with advising_tiles(autoencoder, images.image_size, batch="--batch"):
        scores = _scores(autoencoder, images, judges, options, reference=others, ranks=ranks, console=console)
    if not ranks.first:
        return None
    warnings = partial_judges(judges.networks, lessons_of_autoencoder(metadata))
    trained_on = metadata.get("data") == images.digest
    evaluation = ReconstructionEvaluation(
        smtool=__version__,
        checkpoint=Checkpoint(
            path=path, sha256=opened.digest, step=metadata.get("step"), **({} if options.tile is None else {"tile": options.tile})
        ),
        images=Reconstructed(**dict(_described(images)), trained_on=trained_on),
        reference=_described(others or images),
        warnings=warnings,
        computed=computation(options.device),
        scores=scores,
    )
    count = min(options.num_images or MOST_IMAGES, len(images))
    leave(evaluation, options, title=f"{path}: {count:,} of {len(images):,} {_which(images)}", console=console)
    return evaluation


def _refuse_what_samples_are_asked(path: str, options: EvalOptions) -> None:
    if options.draws:
        raise RecipeError(f"{path} is an autoencoder: sampler options have no effect.", hint="Pass a checkpoint of `train-dit`.")
    if options.save_reference or options.infinity:
        option = "--save-reference" if options.save_reference else "--infinity"
        raise RecipeError(f"{option} is for generated images, but {path} is an autoencoder.", hint="Remove the option.")


def _scores(
    autoencoder: Tokenizer,
    images: ImageShards,
    judges: Judges,
    options: EvalOptions,
    *,
    reference: ImageShards | None,
    ranks: Ranks,
    console: Console,
) -> dict[str, ReconstructionScore]:
    """Score name -> score of an autoencoder; {} on all ranks but the first. autoencoder, judges: on options.device.

    reference: images to take Frechet distances to, instead of the inputs.
    """
    protocol, count = options.rules, min(options.num_images or MOST_IMAGES, len(images))
    for compared in (images, reference or images):
        if judges.extractors and min(count, len(compared)) < 2:
            raise DataError(f"{compared.folder}: a Frechet distance needs at least 2 images, found 1.", hint="Use --psnr.")
    reading = SharedReading(options.batch, ranks, options.features_folder)
    with console.progress("reconstructing") as report:
        measured = reading.reconstructions(autoencoder, images, count, judges, protocol, seed=options.seed, report=report)
    origin = Origin(images.digest, images.groups, size=images.image_size, channels=images.channels)
    if reference is not None:
        others = reading.features(reference, min(MOST_IMAGES, len(reference)), judges.extractors, protocol)
        origin = replace(
            origin,
            reference_sha256=reference.digest,
            reference=others,
            reference_size=reference.image_size,
            reference_channels=reference.channels,
        )
    if not ranks.first:
        return {}
    device = options.device if options.device.startswith("cuda") else "cpu"
    return reconstruction_scores(measured, judges, origin, protocol, seed=options.seed, device=device)


def _metadata(found: Found) -> Mapping[str, Any]:
    """Metadata of a checkpoint written by smtool; {} for other tokenizers."""
    kind = found.metadata.get("kind", "autoencoder")
    if kind != "autoencoder":
        raise CheckpointError(
            f"{found.place} holds a file of kind {kind!r}, which `eval` cannot score.",
            hint="Pass a checkpoint written by `smtool train-ae` or `smtool train-dit`.",
        )
    return found.metadata


def _named_images(path: str, metadata: Mapping[str, Any], data: str | None) -> Data:
    """The images to reconstruct: those of `data`, else the validation images of the checkpoint's recipe.

    Images of `data` that are not prepared get the size in the recipe.
    """
    recipe = metadata.get("recipe")
    table = recipe.get("data") if isinstance(recipe, Mapping) else None
    if data is not None:
        return _other_images(data, table.get("image_size") if isinstance(table, Mapping) else None)
    if recipe is None:
        raise CheckpointError(f"{path} does not name images to reconstruct.", hint=_PASS_SOME)
    if not isinstance(table, Mapping):
        raise CheckpointError(f"{path} does not name images to reconstruct: its recipe has no table [data].", hint=_PASS_SOME)
    try:
        return Data.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(f"data.{problem}" for problem in validation_problems(error, Data)).removesuffix(".")
        raise CheckpointError(f"{path} holds a recipe that this version cannot read: {problems}.", hint=_PASS_SOME) from error


def _other_images(source: str, image_size: SizeLike | None) -> Data:
    """The validation split of a source, or all its images if it has no such split."""
    if source.endswith(".npz"):
        raise DataError(
            f"{source}: an .npz cannot be the reference of reconstructions; its images were processed differently.",
            hint="Remove --reference, or pass images: a prepared folder, shards, or builtin:NAME.",
        )
    folder = Path(source)
    size = read_card(folder).image_size if is_prepared(folder) else image_size
    try:
        return Data(validation=source, image_size=size, batch=1)
    except ValidationError as error:
        raise DataError(
            f"{source} is not prepared, and the checkpoint does not state an image size.",
            hint=f"Prepare it first: smtool prepare {source} --size SIZE",
        ) from error


def _reference(source: str, images: ImageShards) -> ImageShards:
    """Other images for Frechet distances: those of a prepared folder, or any others at the size and channels of `images`."""
    channels = known_channels(source) if is_prepared(Path(source)) else images.channels
    return open_validation(_other_images(source, images.image_size), channels)


def _described(images: ImageShards) -> Images:
    return Images(
        source=images.card.source.name,
        folder=str(images.folder),
        split=images.split,
        image_size=images.image_size,
        sha256=images.digest,
    )


def _which(images: ImageShards) -> str:
    """Name of the images for a title; "validation" only if the source has such a split."""
    return f"{'validation ' if images.split == 'val' else ''}images of {images.card.source.name}"
