"""`smtool eval`: score an autoencoder's reconstructions of images that it was not trained on, or generated images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smtool import __version__
from smtool.datasets import ImageShards
from smtool.datasets.card import CARD_NAME, read_card
from smtool.datasets.sources import image_files
from smtool.errors import CheckpointError, DataError, RecipeError
from smtool.features.protocol import Protocol
from smtool.interop import autoencoder_digest, find_autoencoder, load_autoencoder
from smtool.networks.autoencoder import Autoencoder
from smtool.pipelines.evaluate.asked import Asked
from smtool.pipelines.evaluate.generations import MOST_IMAGES, evaluate_generations
from smtool.pipelines.evaluate.judges import Judges, build_judges, shared_networks
from smtool.pipelines.evaluate.reconstruction_pass import SharedReading
from smtool.pipelines.evaluate.reconstruction_scores import Origin, reconstruction_scores
from smtool.pipelines.evaluate.scores import Score, score_table
from smtool.pipelines.train.diffusion_checkpoint import is_diffusion
from smtool.pipelines.train.validate import open_validation
from smtool.recipe import Data
from smtool.report.console import Console
from smtool.storage import read_metadata, write_json
from smtool.training.distributed import ALONE, Ranks, first_rank_ahead, joined


def evaluate(what: str | None, asked: Asked, *, console: Console) -> dict[str, Any]:
    """Score a checkpoint, a run, a diffusers folder or images (None: the run with the newest ckpt.safetensors) and show a table.

    An autoencoder's reconstructions are scored against their inputs: with nothing asked by PSNR, SSIM and fd_random. For a
    transformer's samples, and images in a folder, archive or npz, see evaluate_generations. Returns what is written to
    asked.json_path. Under torchrun the ranks share the passes over images, and the first one alone scores; others return {}.
    """
    path = _found(what)
    with joined(asked.device) as ranks:
        asked = replace(asked, device=ranks.device)
        if _is_autoencoder(path):
            return _evaluate_reconstructions(path, asked, ranks, console)
        if asked.data is not None:
            raise RecipeError("--data names images to reconstruct, but samples are scored.", hint="Compare with --reference.")
        return evaluate_generations(path, asked, ranks=ranks, console=console)


def _evaluate_reconstructions(path: Path, asked: Asked, ranks: Ranks, console: Console) -> dict[str, Any]:
    if asked.draws:
        raise RecipeError(f"{path} is an autoencoder: there is no sampler to choose.", hint="Pass a checkpoint of `train-dit`.")
    if asked.save_reference or asked.infinity:
        option = "--save-reference" if asked.save_reference else "--infinity"
        raise RecipeError(f"{option} is for generated images, but {path} is an autoencoder.", hint="Leave it out.")
    rules, metadata = asked.rules, _metadata(path)
    judges = build_judges(asked.scores, asked.features, rules, weights_dir=asked.weights_dir).to(asked.device)
    with first_rank_ahead(ranks):
        images = _images(path, metadata, asked.data)
        others = None if asked.reference is None else _other_images(asked.reference, images.image_size)
    autoencoder = load_autoencoder(path, device=asked.device).eval()
    found = score_reconstructions(autoencoder, images, judges, asked, reference=others, ranks=ranks, console=console)
    if not ranks.first:
        return {}
    warnings = shared_networks(judges, metadata.get("recipe") or {})
    result = {
        "smtool": __version__,
        "checkpoint": {"path": str(path), "sha256": autoencoder_digest(autoencoder), "step": metadata.get("step")},
        "images": _described(images),
        "reference": _described(others or images),
        "scores": {name: score.to_json() for name, score in found.items()},
        "warnings": warnings,
    }
    _show(console, path, images, list(found.values()), rules)
    for name, warning in warnings.items():
        console.print(f"{name}: {warning}.")
    if asked.json_path is not None:
        write_json(asked.json_path, result)
    return result


def score_reconstructions(
    autoencoder: Autoencoder,
    images: ImageShards,
    judges: Judges,
    asked: Asked,
    *,
    reference: ImageShards | None = None,
    ranks: Ranks = ALONE,
    console: Console,
) -> dict[str, Score]:
    """Score name -> score of an autoencoder, which like judges is on asked.device; on other ranks than the first, nothing.

    reference: other images that Frechet distances are taken to.
    """
    protocol, count = asked.rules, min(asked.num_images or MOST_IMAGES, len(images))
    if count < 2 and judges.extractors:
        raise DataError(f"{images.folder}: a Frechet distance needs at least 2 images, found {count}.", hint="Ask for --psnr.")
    reading = SharedReading(asked.batch, ranks, asked.features_folder)
    with console.progress("reconstructing") as report:
        measured = reading.reconstructions(autoencoder, images, count, judges, protocol, seed=asked.seed, report=report)
    origin = Origin(images.digest, images.groups)
    if reference is not None:
        others = reading.features(reference, min(MOST_IMAGES, len(reference)), judges.extractors, protocol)
        origin = Origin(images.digest, images.groups, reference.digest, others)
    if not ranks.first:
        return {}
    device = asked.device if asked.device.startswith("cuda") else "cpu"
    return reconstruction_scores(measured, judges, origin, protocol, seed=asked.seed, device=device)


def newest_run(root: Path = Path("runs")) -> Path:
    """The ckpt.safetensors under `root` that was written last."""
    found = sorted(root.rglob("ckpt.safetensors"), key=lambda path: (path.stat().st_mtime, str(path)))
    if not found:
        raise CheckpointError(
            f"there is no run under {root}/ to evaluate.",
            hint="Train one with `smtool train-ae recipes/dsm.toml`, or name a checkpoint: smtool eval CKPT",
        )
    return found[-1]


def _found(what: str | None) -> Path:
    """A checkpoint, a diffusers folder, or images in files."""
    if what is None:
        return newest_run()
    path = Path(what)
    if path.is_file() and path.suffix != ".safetensors":
        return path
    try:
        return find_autoencoder(what)      # runs of transformers are found by the same rule
    except CheckpointError:
        if path.is_dir() and ((path / "samples.json").is_file() or any(path.glob("*.tar")) or image_files(path)):
            return path
        raise


def _is_autoencoder(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return not is_diffusion(path)
    return (path / "config.json").is_file()


def _metadata(path: Path) -> dict[str, Any]:
    """What an autoencoder's checkpoint says of itself; nothing for folders of other tools."""
    metadata = {} if path.is_dir() else read_metadata(path)
    kind = metadata.get("kind", "autoencoder")
    if kind != "autoencoder":
        raise CheckpointError(
            f"{path} holds kind {kind!r}, which `eval` cannot score.",
            hint="Pass a checkpoint written by `smtool train-ae` or `smtool train-dit`.",
        )
    return metadata


def _images(path: Path, metadata: Mapping[str, Any], data: str | None) -> ImageShards:
    """The validation images of the checkpoint's recipe, or those of `data`, at the recipe's size unless `data` has its own."""
    recipe = metadata.get("recipe")
    if data is not None:
        return _other_images(data, (recipe or {}).get("data", {}).get("image_size"))
    if recipe is None:
        raise CheckpointError(f"{path} does not say which images it is for.", hint="Name some: --data FOLDER")
    try:
        return open_validation(Data.model_validate(recipe["data"]))
    except (KeyError, ValidationError) as error:
        raise CheckpointError(f"{path}: its recipe names no images ({error}).", hint="Name some: --data FOLDER") from error


def _other_images(source: str, image_size: int | None) -> ImageShards:
    """The validation split of a source, or all of one that has none."""
    if source.endswith(".npz"):
        raise DataError(
            f"{source}: statistics of other pixels are no reference for reconstructions, which answer to their own inputs.",
            hint="Leave --reference out, or name images: a prepared folder, shards, or builtin:NAME.",
        )
    folder = Path(source)
    size = read_card(folder).image_size if (folder / CARD_NAME).is_file() else image_size
    if size is None:
        raise DataError(
            f"{source} is not prepared, and the checkpoint does not say at which size to take it.",
            hint=f"Prepare it first: smtool prepare {source} --size SIZE",
        )
    return open_validation(Data(validation=source, image_size=size, batch=1))


def _described(images: ImageShards) -> dict[str, Any]:
    return {
        "source": images.card.source.name,
        "folder": str(images.folder),
        "split": images.split,
        "image_size": images.image_size,
        "sha256": images.digest,
    }


def _show(console: Console, path: Path, images: ImageShards, scores: Sequence[Score], protocol: Protocol) -> None:
    split = "validation" if images.split == "val" else "training"
    count = scores[0].passport.num_images
    console.print(score_table(scores, f"{path}: {count:,} of {len(images):,} {split} images of {images.card.source.name}"))
    console.print(f"Protocol {protocol.name}: decoding the posterior's {protocol.posterior}.")
    if any(score.passport.metric == "frechet distance" for score in scores):
        console.print("Frechet distances fall as N grows: compare them at equal N, images and extractor only.")
