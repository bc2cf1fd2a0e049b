"""The [end_to_end] table of a `train-dit` recipe: training the autoencoder together with the transformer."""

from collections.abc import Iterator

from pydantic import Field, SerializeAsAny

from smtool.config import LARGEST_WIDTH, Config, LossConfig
from smtool.features.perceptual import Perceptual
from smtool.regularizers import Regularizers
from smtool.tasks.adversary import Adversary
from smtool.tasks.autoencoder import Reconstruction
from smtool.training.optimizer import AdamW


class TrainedDiscriminator(Config):
    """A PatchGAN that is trained already, by `train-ae`. It learns in every step; its term has a fixed weight."""

    init: str = Field(
        min_length=1,
        description="the weights it starts from: a run of train-ae with a [discriminator], or a checkpoint of LDM's trainer",
    )
    weight: float = Field(0.1, gt=0, description="factor of the adversarial term of the autoencoder")
    num_layers: int = Field(3, ge=1, le=16, description="number of stride-2 convolutions, as in the run of `init`")
    channels: int = Field(64, ge=1, le=LARGEST_WIDTH, description="channels after the first convolution, as in the run of `init`")
    optimizer: AdamW | None = Field(None, description="optimizer of the discriminator; absent: that of the autoencoder")

    @property
    def table(self) -> Adversary:
        """As the [discriminator] of `train-ae`."""
        return Adversary(
            init=self.init, weight=self.weight, num_layers=self.num_layers, channels=self.channels, optimizer=self.optimizer,
            start=0, updates="simultaneous", adaptive=False,
        )


class EndToEnd(LossConfig):
    """Train the autoencoder together with the transformer (REPA-E, arXiv 2504.10483).

    In each step the autoencoder is updated first, by its own losses and by the alignment loss of its latents through the frozen
    transformer; then the discriminator; then the transformer, whose loss does not reach the autoencoder. BatchNorm normalizes the
    latents. The run writes the autoencoder as `autoencoder.safetensors`.
    """

    alignment_weight: float = Field(
        1.5, gt=0, description="factor of the alignment loss of the autoencoder; that of the transformer is alignment.weight"
    )
    momentum: float = Field(0.1, gt=0, lt=1, description="weight of a new batch in the running statistics of BatchNorm")
    eps: float = Field(1e-4, gt=0, description="added to the variances of BatchNorm")
    optimizer: AdamW | None = Field(None, description="optimizer of the autoencoder; absent: the same settings as [optimizer]")
    validation: str = Field(
        "",
        description="images for the validation of reconstructions; empty: those of the autoencoder's training if it had the same "
        "training images, else the validation split of data.train",
    )
    reconstruction: Reconstruction = Reconstruction()
    perceptual: Perceptual | None = None
    discriminator: TrainedDiscriminator | None = None
    regularizers: SerializeAsAny[Regularizers] = Regularizers()

    def learned_from(self) -> tuple[str, ...]:
        perceptual = () if self.perceptual is None else self.perceptual.learned_from()
        return (*perceptual, *self.regularizers.learned_from())

    def problems(self) -> Iterator[tuple[str, str]]:
        """(key, sentence) for values that joint training does not allow."""
        if self.reconstruction.loss == "velocity":
            yield "reconstruction.loss", 'must be "l1" or "l2", since no decoder that denoises can be trained end to end'
        if self.regularizers.eq_vae is not None and self.regularizers.eq_vae.prior > 0:
            sentence = "must be 0: it changes the size of images, but the transformer needs latents of one size"
            yield "regularizers.eq_vae.prior", sentence
