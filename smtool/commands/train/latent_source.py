"""Source of the latents of a `train-dit` run: autoencoder, images, cache, statistics."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from smtool.commands.prepare.latents import cached_latents
from smtool.commands.train.band_floors import floor_values, has_floors
from smtool.data import ImageShards, LatentBatch, encoded_batches, latent_batches, open_images, validation_batches
from smtool.data.features.shards import FeatureShards
from smtool.data.images.open import known_channels
from smtool.data.latents.card import LATENT_CARD_NAME
from smtool.data.latents.dct_measures import images_eta, with_measured_eta
from smtool.data.latents.elements import measure_elements
from smtool.data.latents.prepare import LatentPreparation
from smtool.data.latents.shards import LatentShards
from smtool.data.latents.statistics import measure_latents
from smtool.diffusion import DDPM, VPSDE, Flow
from smtool.errors import CheckpointError, RecipeError
from smtool.image_shape import ImageSize
from smtool.inference.diffusion_model import resumed_latents
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator
from smtool.recipe import Recipe, TrainDiT
from smtool.recipe.catalog import autoencoder_recipe
from smtool.report.console import Console
from smtool.spectrum.recolour import check_size
from smtool.tokenizers import identify, open_tokenizer
from smtool.tokenizers.dct import DCT, dct, needs_measured_eta, stale_eta
from smtool.tokenizers.encode import encoded, encoding_in
from smtool.training.distributed import Ranks, first_rank_ahead

FLOOR_SAMPLES = 512
FLOOR_IMAGES_PER_CHANNEL = 10
STATS_SAMPLES = 10_000


@dataclass(frozen=True)
class LatentSource:
    """Everything that latents come from. place: path or name of the autoencoder; data: source of the images.

    cache: None if images are encoded while training; stats: statistics that normalize the latents; remarks: lines for the log.
    """

    autoencoder: Tokenizer
    place: str
    data: str
    images: ImageShards
    cache: LatentShards | None
    stats: LatentStats
    remarks: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a latent."""
        return self.autoencoder.latent_shape(*self.images.image_size)

    def floors(self, process: Flow | DDPM | VPSDE) -> dict[str, float]:
        """Lower bounds of the losses for Gaussian latents, measured on the first images (see `floor_values`).

        {} if they are unknown for this process, or if there are too few images to measure them.
        """
        if not has_floors(process) or len(self.images) < FLOOR_IMAGES_PER_CHANNEL * self.shape[0]:
            return {}
        posterior = self.first(FLOOR_SAMPLES)
        noise = torch.randn(posterior.mean.shape, generator=generator("band floors"))
        return floor_values(self.stats.normalize(posterior.sample(noise)))

    def first(self, count: int) -> Posterior:
        """Posteriors of the first images in stored order. The stored order is random."""
        indices = range(min(count, len(self.images)))
        if self.cache is not None:
            return self.cache.read(indices, [False] * len(indices)).posterior
        batches = validation_batches(self.images, batch=32, limit=len(indices))
        return Posterior.joined(encoded(self.autoencoder, batch.images, batch.ids) for batch in batches)

    def batches(
        self, tables: TrainDiT, ranks: Ranks, first: int, *, with_images: bool, features: FeatureShards | None = None
    ) -> Generator[LatentBatch]:
        """This rank's slices of the global batches, from step `first` on. In the warm-up, latents are of low-passed images.

        Images and features in the batches are never low-passed.
        """
        data, (start, stop) = tables.data, ranks.local_slice(tables.data.batch)
        order: dict[str, Any] = {"seed": tables.seed, "batch": data.batch, "start": start, "stop": stop}
        reading = {**order, "workers": data.workers, "flip": data.flip, "features": features, "pin": ranks.on_gpu}
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


def open_latent_source(recipe: Recipe[TrainDiT], ranks: Ranks, *, resumed: Path | None = None) -> LatentSource:
    """Open autoencoder, images, cache and statistics. The first rank prepares missing images and latents while others wait.

    resumed: the ckpt.safetensors of a run to resume. Its statistics are used, and CheckpointError is raised if the autoencoder
    is not the one that the run was started with.
    """
    with first_rank_ahead(ranks):
        tables = recipe.tables
        place = _fitted(recipe, autoencoder_place(tables.latents.autoencoder))
        autoencoder = _tokenizer(recipe, place, ranks.device)
        stored = None if resumed is None else resumed_latents(resumed, place, autoencoder)
        data, image_size = images_behind(recipe, place, autoencoder)
        images = open_images(data, "train", image_size=image_size, channels=autoencoder.image_channels)
        _check_sizes(recipe, autoencoder, images)
        cache = _cache(tables, autoencoder, images, place)
        stats = stored or _stats(tables, autoencoder, images, cache, place)
        remarks = _dct_remarks(autoencoder, images, cache)
    return LatentSource(autoencoder, place, data, images, cache, stats, remarks)


def _fitted(recipe: Recipe[TrainDiT], place: str) -> str:
    """The name of the autoencoder; eta=measured of a DCT tokenizer is replaced by the number that the images give."""
    if not needs_measured_eta(place):
        return place
    data, image_size = images_behind(recipe, place, dct(place, measured=1.0).build())
    return with_measured_eta(place, open_images(data, "train", image_size=image_size, channels=3))


def _dct_remarks(autoencoder: Tokenizer, images: ImageShards, cache: LatentShards | None) -> tuple[str, ...]:
    """Lines about a DCT tokenizer: whether images are encoded in each step, and an eta that is not that of the images."""
    if not isinstance(described := autoencoder.config, DCT):
        return ()
    source = f"images are encoded in every step by {described.name}" if cache is None else f"latents are read from {cache.folder}"
    known = None if cache is None else cache.card.dct
    eta = images_eta(images, described.block)[0] if known is None else known.eta
    stale = stale_eta(described, eta, str(images.folder))
    return (source, stale) if stale else (source,)


def _tokenizer(recipe: Recipe[TrainDiT], place: str, device: str) -> Tokenizer:
    """Open the autoencoder, for the recipe's image size if it states one. Raises CheckpointError if it has no decoder."""
    size = recipe.tables.data.image_size
    channels = known_channels(recipe.tables.data.train)
    tokenizer = open_tokenizer(
        place, device=device, image_size=None if size == "autoencoder" else size, image_channels=channels
    )
    if not tokenizer.can_decode:
        raise CheckpointError(
            f"{place} has no decoder: samples of a transformer on its latents could not be decoded into images.",
            hint="Use an autoencoder with a decoder. `smtool spectrum` and `prepare --latents` accept encoders.",
        )
    return encoding_in(tokenizer, recipe.tables.latents.precision)


def _check_sizes(recipe: Recipe[TrainDiT], autoencoder: Tokenizer, images: ImageShards) -> None:
    """Raise RecipeError if statistics do not fit the size of the latents, before they are encoded.

    A recolouring needs enough cells for its law, and statistics of 2x2 patches need even sides.
    """
    chosen, published = recipe.tables.latents, autoencoder.stats
    if chosen.flatten is None and (chosen.stats != "published" or published is None):
        return
    hint = "Use another size of images."
    try:
        _, height, width = autoencoder.latent_shape(*images.image_size)
        hint = 'Use another size of images, or stats = "channel".'
        if chosen.flatten is not None:
            check_size((height, width), chosen.flatten)
        elif published is not None:
            published.refuse_odd(height, width)
    except ValueError as error:
        raise RecipeError(f"{recipe.path}: latents: {error}.", hint=hint) from error


def _cache(tables: TrainDiT, autoencoder: Tokenizer, images: ImageShards, place: str) -> LatentShards | None:
    """The cache, made if it is missing; None if images are encoded in every step.

    Encoding DCT coefficients costs no more than reading them, so that a cache of them is used but not made.
    """
    if tables.latents.online:
        return None
    preparation = LatentPreparation(
        autoencoder,
        images,
        autoencoder_digest=autoencoder.digest,
        checkpoint=place,
        flip=tables.data.flip,
        dtype=tables.latents.dtype,
    )
    if isinstance(autoencoder.config, DCT) and not (preparation.folder / LATENT_CARD_NAME).is_file():
        return None
    with Console().progress(f"encoding {images.folder} into {preparation.folder}") as report:
        return cached_latents(preparation, stats=tables.latents.measured, workers=tables.data.workers, report=report)


def _stats(
    tables: TrainDiT, autoencoder: Tokenizer, images: ImageShards, cache: LatentShards | None, place: str
) -> LatentStats:
    """Statistics that normalize the latents: from the autoencoder or the cache, or measured now, as set in the recipe."""
    if tables.latents.stats == "published":
        if autoencoder.stats is None:
            raise RecipeError(f"latents.stats: {place} has no published statistics.", hint='Use "channel" or "scalar".')
        return autoencoder.stats
    if tables.latents.stats == "element":
        return _of_elements(tables, autoencoder, images, cache)
    if cache is not None:
        return cache.stats
    data, kind = tables.data, tables.latents.measured
    return measure_latents(images, autoencoder, kind=kind, count=STATS_SAMPLES, flip=data.flip, batch=32, workers=data.workers)


def _of_elements(tables: TrainDiT, autoencoder: Tokenizer, images: ImageShards, cache: LatentShards | None) -> LatentStats:
    """Statistics of every element, on all latents of the cache, or on the first images."""
    flip, count = tables.data.flip, STATS_SAMPLES if cache is None else len(cache)
    with Console().progress("measuring every element of the latents") as report:
        return measure_elements(cache or images, autoencoder, count=count, flip=flip, data=images.digest, report=report)


def autoencoder_place(what: str) -> str:
    """Path or name of the autoencoder. If it is a missing run of a packaged recipe, the error tells how to train it."""
    try:
        return identify(what).place
    except CheckpointError as error:
        if not (Path(what) / "ckpt.safetensors").is_file() and (command := _training_command(what)):
            raise CheckpointError(f"{what}: there is no autoencoder here yet.", hint=f"Train it first: {command}") from error
        raise


def _training_command(run: str) -> str | None:
    """Command that trains the run folder of a packaged recipe; None for other folders."""
    if (found := autoencoder_recipe(run)) is None:
        return None
    name, own = found
    return f"smtool train-ae recipes/{name}.toml" + ("" if own else f" --out {run}")


def images_behind(recipe: Recipe[TrainDiT], place: str, tokenizer: Tokenizer) -> tuple[str, ImageSize]:
    """(source, size) of the training images: from the recipe, else those that the autoencoder was trained on."""
    data = recipe.tables.data
    known = tokenizer.recipe.get("data", {})
    source = data.train or known.get("train")
    size = known.get("image_size") if data.image_size == "autoencoder" else data.image_size
    if not source or size is None:
        missing = "data.train" if not source else "data.image_size"
        raise RecipeError(f"{recipe.path}: {missing} is required, because {place} does not state its training data.")
    return source, ImageSize.of(size)
