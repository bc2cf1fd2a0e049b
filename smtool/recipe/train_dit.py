"""The tables of a `train-dit` recipe."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from smtool.config import Config
from smtool.data.latents.statistics import Spectral, StatsKind
from smtool.diffusion import DDPM, VPSDE, AnyAlignment, Flow, Sampler, Warmup
from smtool.image_shape import ImageSize
from smtool.networks import AnyBackbone
from smtool.recipe.end_to_end import EndToEnd
from smtool.recipe.training import TrainingTables
from smtool.tasks.diffusion import ChannelPrefixes, Labels
from smtool.training.sharding import Parallel


class LatentData(Config):
    """The images of the latents."""

    train: str = Field(
        "", description="training images: a prepared folder, raw images or builtin:NAME; empty: those of the autoencoder"
    )
    image_size: ImageSize | Literal["autoencoder"] = Field(
        "autoencoder",
        description='height and width in pixels: one number for squares, else both; "autoencoder": the size of its training',
    )
    batch: int = Field(ge=1, description="samples per step, over all ranks and micro-batches")
    flip: bool = Field(True, description="train on the latents of mirrored images too")
    workers: int = Field(2, ge=1, description="threads that read latents and images, per rank")


class Latents(Config):
    """The latents for training. A missing cache is made; a cache of another autoencoder or of other images is an error."""

    autoencoder: str = Field(
        description="a run of train-ae, a file or folder of another tool, pixels, dct:BxM, or module:attribute"
    )
    stats: Literal["channel", "scalar", "rms", "published", "spectral", "element"] = Field(
        "channel",
        description="normalize by mean and std per channel, by one std (the paper), by one root mean square (DC-AE), by the "
        "published values of an import, per channel and then recolour (`flatten`), or by mean and std of every element, "
        "as RAE does",
    )
    flatten: Annotated[float, Field(ge=-1, le=4)] | Literal["white"] | None = Field(
        None,
        description='spectral only, required there: the spectrum of normalized latents, as delta (that of the images times '
        'f^delta) or "white"',
    )
    dtype: Literal["bf16", "fp32"] = Field("bf16", description="number format of the cached moments")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="precision of the autoencoder while it encodes, for a cache or in every step: bf16 is faster on a GPU, and "
        "rounds latents",
    )
    online: bool = Field(
        False, description="encode images in every step instead of reading a cache; dct:BxM does so too unless there is a cache"
    )
    embed: bool = Field(True, description="copy the autoencoder into the checkpoint; false: store only its path and digest")


    @property
    def measured(self) -> StatsKind:
        """The statistics that a cache measures; per channel for published ones and those of elements, which it does not."""
        if self.flatten is not None:
            return Spectral(self.flatten)
        return self.stats if self.stats in ("scalar", "rms") else "channel"

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.stats == "spectral" and self.flatten is None:
            yield "flatten", 'is required with stats = "spectral": a delta, such as 1.0, or "white"'
        if self.stats != "spectral" and self.flatten is not None:
            yield "flatten", f'is for stats = "spectral", but stats is "{self.stats}"'


class DiffusionLoss(Config):
    """The loss is the mean over batch and elements of w_c (error)^2, where w_c is the weight of channel c, plus `cosine` times
    the mean over positions of 1 - cos, of the angle between prediction and target over channels."""

    weights: Literal["uniform", "entropy"] | tuple[Annotated[float, Field(ge=0)], ...] = Field(
        "uniform",
        description='weights of the latent channels: "uniform": 1; "entropy": entropy in bits of a channel of the training '
        "latents, over its mean in the channel's group (DCTdiff, arXiv 2412.15032); or one number for each channel",
    )
    cosine: float = Field(
        0.0, ge=0, description="weight of the cosine term; LightningDiT (arXiv 2501.01423) has 1 with flow matching; 0: none"
    )


class Samples(Config):
    """Samples for validation, every `evaluate_every` steps."""

    num_images: int = Field(64, ge=2, description="number of samples to draw and score")
    grid: int = Field(16, ge=1, description="number of them to show")
    features: str = Field("random", description="feature extractor for the Frechet and kernel distances to the training images")


class TrainDiT(TrainingTables):
    """A recipe of `smtool train-dit`."""

    compile: bool = Field(
        False,
        description="compile the blocks of the transformer and of the teacher, and the alignment, with torch.compile: slower "
        "start, faster steps on a GPU, equal to rounding",
    )
    data: LatentData
    latents: Latents
    model: AnyBackbone
    process: Annotated[Flow | DDPM | VPSDE, Field(discriminator="kind")] = Flow()
    loss: DiffusionLoss = DiffusionLoss()
    labels: Labels | None = None
    channel_prefix: ChannelPrefixes | None = None
    alignment: AnyAlignment | None = None
    end_to_end: EndToEnd | None = None
    warmup: Warmup | None = None
    sampler: Sampler = Sampler()
    validation: Samples = Samples()
    parallel: Parallel = Parallel()

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.data.batch % self.accumulate:
            yield "accumulate", f"{self.accumulate} micro-batches do not divide data.batch = {self.data.batch}"
        for key, sentence in self.latents.problems():
            yield f"latents.{key}", sentence
        if not isinstance(self.loss.weights, str) and not any(self.loss.weights):
            yield "loss.weights", "must have a number above 0"
        if self.channel_prefix is not None and getattr(self.model, "final_conv", False):
            sentence = "needs an output whose channels can be cut, but model.final_conv mixes them; use model.final_conv = false"
            yield "channel_prefix", sentence
        if self.sampler.cfg_scale > 1 and self.labels is None:
            yield "sampler.cfg_scale", "guidance needs classes: add a [labels] table, or use cfg_scale = 1"
        if self.labels is not None and self.labels.dropout > 0 and not self.model.has_null_class:
            yield "labels.dropout", f"must be 0 with model.null_class = false, but is {self.labels.dropout:g}"
        for key, sentence in self.sampler.problems(self.process, num_classes=1, null_class=self.model.has_null_class):
            yield f"sampler.{key}", sentence
        for key, sentence in self.warmup.problems() if self.warmup is not None else ():
            yield f"warmup.{key}", sentence
        if self.alignment is not None and self.alignment.depth > self.model.depth:
            yield "alignment.depth", f"must be at most the model's {self.model.depth} blocks, but is {self.alignment.depth}"
        yield from self._joint_problems()

    def _joint_problems(self) -> Iterator[tuple[str, str]]:
        """Tables and values that [end_to_end] needs or excludes."""
        if self.end_to_end is None:
            return
        if self.alignment is None:
            yield "end_to_end", "needs an [alignment] table, because the autoencoder learns from the loss of alignment"
        if self.latents.stats != "channel":
            found = f'but is "{self.latents.stats}"'
            yield "latents.stats", f'must be "channel" with [end_to_end], whose BatchNorm works per channel, {found}'
        if self.latents.precision != "fp32":
            yield "latents.precision", "has no effect with [end_to_end], where `precision` is that of all networks; leave it out"
        if not self.latents.embed:
            yield "latents.embed", "must be true with [end_to_end]: the autoencoder changes with the transformer"
        if self.warmup is not None:
            yield "warmup", "cannot be used with [end_to_end], in which both networks use the same latents"
        if self.channel_prefix is not None:
            yield "channel_prefix", "cannot be used with [end_to_end]"
        if self.loss.weights == "entropy":
            yield "loss.weights", 'cannot be "entropy" with [end_to_end], in which latents change; use "uniform" or numbers'
        for key in self.parallel.model_dump(exclude_defaults=True):
            yield f"parallel.{key}", "has no effect with [end_to_end], in which every rank holds all weights; leave it out"
        for key, sentence in self.end_to_end.problems():
            yield f"end_to_end.{key}", sentence

    def remarks(self) -> Iterator[str]:
        if self.validation.grid > self.validation.num_images:
            yield f"validation.grid is more than validation.num_images: {self.validation.num_images} samples are shown."
        if self.warmup is not None and self.warmup.steps >= self.steps:
            yield f"warmup.steps = {self.warmup.steps} is all of steps = {self.steps}: no step has latents of unfiltered images."
        yield from super().remarks()
