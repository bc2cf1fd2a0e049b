"""Assembling a run of `train-dit`: autoencoder, latents, transformer, alignment, newest checkpoint."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

from smtool.datasets import ImageShards, LatentBatch, encoded_batches, latent_batches, open_images
from smtool.datasets.features import FeatureShards
from smtool.datasets.latents import LatentShards
from smtool.datasets.latents_check import check_latents
from smtool.datasets.latents_measure import measure_latents
from smtool.datasets.latents_write import LatentPreparation
from smtool.errors import CheckpointError, DataError, RecipeError
from smtool.interop import autoencoder_digest, find_autoencoder, load_autoencoder
from smtool.networks.autoencoder import Autoencoder
from smtool.networks.posterior import LatentStats
from smtool.networks.transformer import LatentTransformer
from smtool.pipelines.prepare.latents import cached_latents
from smtool.pipelines.train.aligned import assemble_alignment
from smtool.pipelines.train.diffusion_checkpoint import DiffusionModel, write_diffusion
from smtool.pipelines.train.initial_weights import start_from
from smtool.pipelines.train.observe_diffusion import DiffusionObserver
from smtool.pipelines.train.run import Run, assemble_training, check_batch, newest, result_of
from smtool.pipelines.train.run_folder import RunFolder
from smtool.pipelines.train.teacher_facts import teacher_facts
from smtool.randomness import initializing
from smtool.recipe import Recipe, TrainDiT, packaged, run_name
from smtool.recipe.files import names
from smtool.report.console import Console
from smtool.storage import read_metadata
from smtool.tasks.diffusion import PLAYER, DiffusionTask
from smtool.training.distributed import Ranks, wait_for_all

CHECKED_SAMPLES = 256
STATS_SAMPLES = 10_000


@dataclass(frozen=True)
class LatentSource:
    """The autoencoder, the images behind the latents, the cache (None: encode while training), and what normalizes them."""

    autoencoder: Autoencoder
    path: Path
    data: str
    images: ImageShards
    cache: LatentShards | None
    stats: LatentStats

    @property
    def shape(self) -> tuple[int, int, int]:
        size = self.images.image_size
        return self.autoencoder.section.latent_shape(size, size)

    def batches(
        self, tables: TrainDiT, ranks: Ranks, first: int, *, with_images: bool, features: FeatureShards | None = None
    ) -> Generator[LatentBatch]:
        """This rank's slices of the global batches from `first` on; in the warm-up, latents of low-passed images.

        Images and features that come along are never low-passed.
        """
        data, (start, stop) = tables.data, ranks.share(tables.data.batch)
        order: dict[str, Any] = {"seed": tables.seed, "batch": data.batch, "start": start, "stop": stop}
        reading = {**order, "workers": data.workers, "flip": data.flip, "features": features}
        if tables.warmup is not None and tables.warmup.active(first):
            early = encoded_batches(self.images, self.autoencoder, first=first, transform=tables.warmup.filtered, **reading)
            with closing(early):
                yield from islice(early, tables.warmup.steps - first)
            first = tables.warmup.steps
        if self.cache is None:
            later = encoded_batches(self.images, self.autoencoder, first=first, **reading)
        else:
            later = latent_batches(self.cache, first=first, images=self.images if with_images else None, **reading)
        with closing(later):
            yield from later


def diffusion_run(recipe: Recipe[TrainDiT], folder: RunFolder, ranks: Ranks, weights_dir: Path | None) -> Run:
    """Open latents and data, build the transformer from the recipe's seed, load the newest checkpoint if there is one."""
    tables = recipe.tables
    check_batch(recipe, tables.data.batch, ranks)
    source = _opened(recipe, ranks)
    num_classes = _num_classes(tables, source.images)
    network = _network(recipe, source.shape, num_classes, ranks.device)
    start = []
    if tables.model.init and not folder.has_checkpoint:
        start = [start_from(network, tables.model.init, heads=tables.model.heads)]
    aligned = assemble_alignment(tables, network, source.images, folder, ranks.device, weights_dir)
    taught = aligned is not None and aligned.cache is None
    process = tables.process.build()
    task = DiffusionTask(
        network,
        process,
        source.stats,
        labels=tables.labels,
        alignment=aligned.loss if aligned else None,
        teacher=aligned.teacher if aligned and taught else None,
    )
    training = assemble_training(
        recipe,
        task,
        ranks,
        batch=tables.data.batch,
        averaged=PLAYER,
        optimizers={PLAYER: tables.optimizer},
        parallel=tables.parallel,
    )
    checkpoints, first_step = newest(folder, tables, training)
    if tables.compile:
        network.compile()

    def batches(first: int) -> Generator[LatentBatch]:
        return source.batches(tables, ranks, first, with_images=taught, features=aligned.cache if aligned else None)

    if first_step == 0 and ranks.first:
        count = -(-CHECKED_SAMPLES // (tables.data.batch // ranks.world))
        with closing(source.batches(tables.model_copy(update={"warmup": None}), ranks, 0, with_images=True)) as checked:
            check_latents(list(islice(checked, count)), source.stats, source.autoencoder)

    def model(step: int) -> DiffusionModel:
        weights = cast(LatentTransformer, result_of(training, PLAYER).get_submodule("network"))
        facts = {
            "step": step,
            "weights": "average" if training.averages else "last",
            "data": source.data,
            "data_digest": source.images.digest,
            "image_size": source.images.image_size,
            "autoencoder_path": str(source.path),
        }
        return DiffusionModel(
            tables, weights, process, source.stats, source.autoencoder, source.shape, num_classes, facts
        )

    return Run(
        recipe,
        folder,
        checkpoints,
        training,
        player=PLAYER,
        batches=batches,
        observer=lambda: DiffusionObserver(tables, source.images, model, ranks.device, weights_dir),
        share=lambda step: write_diffusion(folder.ckpt, model(step), recipe=recipe.resolved()),
        facts=(
            f"latents {source.shape} of {len(source.images):,} images, {tables.data.batch} a step"
            + (", encoded while training" if source.cache is None else f", from {source.cache.folder}"),
            f"{num_classes} classes" if num_classes else "unconditional",
            *start,
            *((f"the transformer is sharded over {ranks.world} ranks",) if training.copies else ()),
            *(teacher_facts(aligned, source.images, flip=tables.data.flip) if aligned else ()),
        ),
        first_step=first_step,
        sources={"features": aligned.source} if aligned else {},
    )


def _opened(recipe: Recipe[TrainDiT], ranks: Ranks) -> LatentSource:
    """The first rank makes what is missing (images, latent cache) while the others wait."""
    if not ranks.first:
        wait_for_all()
    tables = recipe.tables
    path = _autoencoder_path(tables.latents.autoencoder)
    autoencoder = load_autoencoder(path, device=ranks.device).eval().requires_grad_(False)
    data, image_size = _images_behind(recipe, path)
    images = open_images(data, "train", image_size=image_size)
    kind = tables.latents.stats
    cache = None
    if not tables.latents.online:
        preparation = LatentPreparation(
            autoencoder,
            images,
            autoencoder_digest=autoencoder_digest(autoencoder),
            checkpoint=str(path),
            flip=tables.data.flip,
            dtype=tables.latents.dtype,
        )
        stats_kind: Literal["channel", "scalar"] = "channel" if kind == "published" else kind
        with Console().progress(f"encoding {data} into {preparation.folder}") as report:
            cache = cached_latents(preparation, stats=stats_kind, workers=tables.data.workers, report=report)
    if kind == "published":
        if autoencoder.stats is None:
            raise RecipeError(f"latents.stats: {path} brings no published statistics.", hint='Use "channel" or "scalar".')
        stats = autoencoder.stats
    elif cache is not None:
        stats = cache.stats
    else:
        stats = measure_latents(
            images, autoencoder, kind=kind, count=STATS_SAMPLES, flip=tables.data.flip, batch=32, workers=tables.data.workers
        )
    if ranks.first:
        wait_for_all()
    return LatentSource(autoencoder, path, data, images, cache, stats)


def _autoencoder_path(what: str) -> Path:
    """The autoencoder of a recipe; where the run of one of our recipes is missing, the sentence names the command for it."""
    try:
        return find_autoencoder(what)
    except CheckpointError as error:
        if command := _training_command(what):
            raise CheckpointError(f"{what}: no autoencoder here yet.", hint=f"Train it first: {command}") from error
        raise


def _training_command(run: str) -> str | None:
    """What trains the run folder of a packaged recipe; None for other folders."""
    for name in names():
        command = f"smtool train-ae recipes/{name}.toml"
        if run == f"runs/{run_name(packaged() / f'{name}.toml')}":
            return command
        if run == f"runs/{name}":
            return f"{command} --out {run}"
    return None


def _images_behind(recipe: Recipe[TrainDiT], path: Path) -> tuple[str, int]:
    """(source, side) of the training images: the recipe's, else those the autoencoder was trained on."""
    data = recipe.tables.data
    known = read_metadata(path).get("recipe", {}).get("data", {}) if path.is_file() else {}
    source = data.train or known.get("train")
    size = known.get("image_size") if data.image_size == "autoencoder" else data.image_size
    if not source or size is None:
        missing = "data.train" if not source else "data.image_size"
        raise RecipeError(f"{recipe.path}: {missing} is required, because {path} does not say what it was trained on.")
    return source, int(size)


def _num_classes(tables: TrainDiT, images: ImageShards) -> int:
    if tables.labels is None:
        return 0
    if not images.num_classes:
        raise DataError(f"{images.folder} has no classes, but the recipe has a [labels] table.", hint="--set labels= removes it.")
    return images.num_classes


def _network(recipe: Recipe[TrainDiT], shape: tuple[int, int, int], num_classes: int, device: str) -> LatentTransformer:
    try:
        with initializing(recipe.tables.seed, PLAYER):
            return recipe.tables.model.build(shape, num_classes).to(device)
    except ValueError as error:
        raise RecipeError(f"{recipe.path}: model: {error}") from error
