"""The loss of a diffusion transformer: denoising of normalized latents, and alignment of tokens with a teacher."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from smtool.config import Config
from smtool.data.batches import LatentBatch, widened
from smtool.devices import to_device
from smtool.diffusion import Noised, Process, WeightedAlignment, perturbed
from smtool.features.frozen import Frozen
from smtool.networks.compiling import blocks_of
from smtool.networks.posterior import LatentStats, Posterior
from smtool.networks.transformer import LatentTransformer, Prediction
from smtool.randomness import Streams
from smtool.regularizers.channel_prefix import prefix
from smtool.spectrum import dct2
from smtool.spectrum.dct import constant, full_precision
from smtool.training.terms import Loss, Term, weighted_sum

PLAYER = "transformer"
NUM_BANDS = 4


class Labels(Config):
    """Class-conditional training. Without this table the labels of the data are not used."""

    dropout: float = Field(
        0.1, ge=0, lt=1,
        description="fraction of labels replaced by the null class; classifier-free guidance needs a value above 0",
    )


class ChannelPrefixes(Config):
    """Augmented training on latents whose first channels hold the most (DC-AE 1.5, arXiv 2508.00413).

    Each step trains on all channels and on random prefixes of them, each with times and noise of its own; losses are averaged.
    Behind a prefix, the network sees 0 and its output does not count, as if its first and last layer were cut.
    """

    lengths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, description="numbers of channels, of which the prefixes are drawn uniformly"
    )
    per_step: int = Field(
        2, ge=2, le=64, description="prefixes in every step: all channels, and others drawn; a step costs as many times more"
    )


class DiffusionTask:
    """The task of training a diffusion transformer. The only player is the transformer with the alignment's projector.

    teacher: uint8 images -> features for the alignment; not used for batches that contain features. channel_weights: factor of
    the squared error of each latent channel, None for 1; the alignment has none. prefixes: also train on the first
    channels alone. cosine: weight of the direction of the prediction at each position.
    """

    def __init__(
        self,
        network: LatentTransformer,
        process: Process,
        stats: LatentStats,
        *,
        labels: Labels | None,
        alignment: WeightedAlignment | None = None,
        teacher: nn.Module | None = None,
        channel_weights: Sequence[float] | None = None,
        prefixes: ChannelPrefixes | None = None,
        cosine: float = 0.0,
    ) -> None:
        self.network = network
        self.process = process
        self.stats = stats
        self.labels = labels
        self.alignment = alignment
        self.prefixes = prefixes
        self.cosine = cosine
        self.teacher = teacher
        self.channel_weights = None if channel_weights is None else torch.tensor(channel_weights, dtype=torch.float64)
        modules: dict[str, nn.Module] = {"network": network}
        if alignment is not None:
            modules["alignment"] = alignment.module
        self.players: dict[str, nn.Module] = {PLAYER: nn.ModuleDict(modules)}

    @property
    def regions(self) -> list[nn.Module]:
        """What `compile` compiles, each by itself: the blocks of the transformer and of the teacher, and the alignment."""
        frozen = blocks_of(self.teacher.network) if isinstance(self.teacher, Frozen) else []
        return [*blocks_of(self.network), *frozen, *([] if self.alignment is None else [self.alignment.module])]

    def players_at(self, step: int) -> tuple[str, ...]:
        return (PLAYER,)

    def count_turns(self, player: str, steps: int) -> int:
        return steps

    def loss(self, player: str, batch: LatentBatch, draws: Streams, step: int) -> Loss:
        """Mean squared error of the prediction with the weights of channels, plus the other terms; averages over prefixes.

        The term "cosine" is 1 - cos of the angle between prediction and target, over the channels of each position
        (released-code.md#lightningdit).

        The log also contains the error per frequency band, without weights, with all channels.
        """
        device = draws.device
        posterior = Posterior(widened(to_device(batch.mean, device)), widened(to_device(batch.logvar, device)))
        latents = self.stats.normalize(posterior.sample(draws.batch("posterior", posterior.mean.shape)))
        features = None if self.alignment is None else self.features(batch.images, batch.features, device)
        return self.loss_of(latents, batch.labels, features, draws)

    def loss_of(self, latents: Tensor, labels: Tensor | None, features: Tensor | None, draws: Streams) -> Loss:
        """`loss` on normalized latents (B, C, h, w). features: the teacher's, None without alignment."""
        labels = self._dropped(self.labels_on(labels, draws.device), draws)
        lengths = self._lengths(draws, latents.shape[1])
        passes = [self._pass(latents, labels, draws, number, length) for number, length in enumerate(lengths)]
        terms = [Term("diffusion", torch.stack([self._weighted(one.error.square()).mean() for one in passes]).mean())]
        if self.cosine:
            cosines = [F.cosine_similarity(one.error + one.target, one.target, dim=1).mean() for one in passes]
            terms.append(Term("cosine", 1 - torch.stack(cosines).mean(), self.cosine))
        loss = weighted_sum([*terms, *self._alignment_terms([one.prediction for one in passes], features)])
        return Loss(loss.total, loss.values | band_errors(passes[0].error.detach()))

    def _lengths(self, draws: Streams, channels: int) -> list[int]:
        """The prefixes of the step: all channels first."""
        if self.prefixes is None:
            return [channels]
        known, count = self.prefixes.lengths, self.prefixes.per_step - 1
        drawn = torch.randint(len(known), (count,), generator=draws.shared("channel prefixes"))
        return [channels, *(known[number] for number in drawn.tolist())]

    def _pass(self, latents: Tensor, labels: Tensor | None, draws: Streams, number: int, length: int) -> "_Pass":
        """With the number-th times and noise of the step; the network sees the first `length` channels."""
        noised = self.noised(latents, draws, number)
        tap = None if self.alignment is None else self.alignment.depth
        prediction = self.network(prefix(noised.x_t, length), noised.network_time, labels, tap=tap)
        target = noised.target[:, :length]
        return _Pass(full_precision(prediction.output)[:, :length] - target, target, prediction)

    def noised(self, latents: Tensor, draws: Streams, number: int = 0) -> Noised:
        """Normalized latents with the number-th times and noise of the step."""
        shape, which = latents.shape, f" {number}" if number else ""
        noised = self.process.noised(latents, draws.batch(f"noise{which}", shape), draws.uniform(f"time{which}", shape[:1]))
        if self.process.input_perturbation:
            noised = perturbed(self.process, noised, draws.batch(f"input perturbation{which}", shape))
        return noised

    def _weighted(self, square: Tensor) -> Tensor:
        """Squared errors (B, c', h, w) times the weights of their channels."""
        if self.channel_weights is None:
            return square
        weights = self.channel_weights[: square.shape[1]].to(square.dtype)
        return square * to_device(weights, square.device).view(1, -1, 1, 1)

    def _alignment_terms(self, predictions: list[Prediction], features: Tensor | None) -> list[Term]:
        if self.alignment is None or features is None:
            return []
        tokens = [found.tokens for found in predictions if found.tokens is not None]
        distances = torch.stack([self.alignment.module(one, features) for one in tokens])
        return [Term("alignment", distances.mean(), self.alignment.weight)]

    def labels_on(self, labels: Tensor | None, device: str) -> Tensor | None:
        """The labels of a batch; None for an unconditional network."""
        if self.labels is None:
            return None
        assert labels is not None
        return to_device(labels, device)

    def _dropped(self, labels: Tensor | None, draws: Streams) -> Tensor | None:
        """Labels, some replaced by the null class."""
        if self.labels is None or labels is None:
            return None
        dropped = draws.uniform("label dropout", (len(labels),)) < self.labels.dropout
        return torch.where(dropped, self.network.num_classes, labels)

    def features(self, images: Tensor | None, cached: Tensor | None, device: str) -> Tensor:
        """The teacher's features: from a cache, else computed from uint8 images (B, C, H, W)."""
        if cached is not None:
            return widened(to_device(cached, device))
        assert self.teacher is not None and images is not None
        with torch.no_grad():
            features: Tensor = self.teacher(to_device(images, device))
        return features


@dataclass(frozen=True)
class _Pass:
    """error: prediction - target, of the channels that count (B, c', h, w), as target is."""

    error: Tensor
    target: Tensor
    prediction: Prediction


def band_errors(error: Tensor) -> dict[str, Tensor]:
    """Mean squared error per DCT coefficient in NUM_BANDS rings of equal width in r = sqrt((u / h)^2 + (v / w)^2).

    error: (B, C, h, w). Band 1 is the lowest and contains the mean; the last band contains the corners. A band whose error is
    above its floor (`smtool.spectrum.mean_velocity_floor` for a Gaussian) is not yet fully learned.
    """
    power = dct2(error).square().mean((0, 1))
    mean = (_band_shares(*power.shape, dtype=power.dtype, device=power.device) * power).sum((1, 2))
    return {f"band{number}": value for number, value in enumerate(mean, start=1)}


@constant
def _band_shares(height: int, width: int) -> Tensor:
    """(NUM_BANDS, h, w): weight of each DCT cell in the mean of each band; all 0 for a band without cells."""
    members = torch.stack([band_index(height, width) == band for band in range(NUM_BANDS)]).double()
    return members / members.sum((1, 2), keepdim=True).clamp(min=1)


def band_index(height: int, width: int) -> Tensor:
    """(h, w) int64: the band of each DCT cell, 0 ... NUM_BANDS - 1."""
    u = torch.arange(height) / height
    v = torch.arange(width) / width
    return (NUM_BANDS * torch.hypot(u[:, None], v[None])).long().clamp(max=NUM_BANDS - 1)
