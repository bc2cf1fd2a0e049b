"""The loss of an autoencoder: reconstruction, regularizers, and an adversarial term."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from smtool.config import Config
from smtool.data.batches import ImageBatch, signed, to_signed, to_uint8
from smtool.devices import image_layout, to_device
from smtool.diffusion import Flow
from smtool.features.pictures import as_rgb
from smtool.networks.trainable import DiffusionAutoencoder, TrainableAutoencoder
from smtool.randomness import Streams
from smtool.regularizers import Encoding, Pair, Regularizer, Shapes
from smtool.tasks.adversary import Adversary, DinoAdversary, hinge_discriminator, hinge_generator
from smtool.tasks.augment import augmented, draw_augmentation
from smtool.tasks.sizes import SizeSchedule
from smtool.tasks.velocity import denoise
from smtool.tasks.wavelet import Wavelet
from smtool.training.terms import Cut, Layer, Loss, Term, weighted_sum


class Reconstruction(Config):
    """The pixel-wise reconstruction loss."""

    loss: Literal["l1", "l2", "velocity"] = Field(
        "l1",
        description="l1: mean absolute difference over pixels and channels; l2: mean squared difference; velocity: mean squared "
        'error of the velocity, the loss and the default of model.kind = "epsilon-vae"',
    )
    weight: float = Field(1.0, gt=0, description="factor of the reconstruction loss")
    time: Literal["uniform", "logit-normal"] = Field(
        "uniform", description='distribution of the training times t; only for loss = "velocity"'
    )


@dataclass(frozen=True)
class Passed:
    """A batch through the autoencoder: its encoding, the pairs after all methods, the methods' draws by name, the decodings of
    the pairs, and of a diffusion decoder the error of the velocity."""

    encoding: Encoding
    pairs: list[Pair]
    draws: dict[str, Any]
    decodings: list[Tensor]
    velocity: Term | None


class AutoencoderTask:
    """The task of training an autoencoder. Players: the autoencoder with its regularizers and, if present, the discriminator.

    perceptual: distance (x, y) in [-1, 1] -> (B,), multiplied by its weight; flip: mirror each image with probability 1/2;
    sizes: of the images in each step, None: that of the batches. For the perceptual distance and the discriminator, gray is three
    equal channels, and alpha is composited on mid gray (`as_rgb`).
    """

    def __init__(
        self,
        autoencoder: TrainableAutoencoder,
        methods: Mapping[str, Regularizer],
        *,
        reconstruction: Reconstruction,
        perceptual: tuple[nn.Module, float] | None,
        adversary: Adversary | DinoAdversary | None,
        discriminator: nn.Module | None,
        flip: bool,
        wavelet: Wavelet | None = None,
        sizes: SizeSchedule | None = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.methods = methods
        self.reconstruction = reconstruction
        self.perceptual = perceptual
        self.adversary = adversary
        self.discriminator = discriminator
        self.flip = flip
        self.wavelet = wavelet
        self.sizes = sizes
        modules = {name.replace(".", "_"): method for name, method in methods.items()}      # names of modules hold no dots
        generator = nn.ModuleDict({"autoencoder": autoencoder, "methods": nn.ModuleDict(modules)})
        self.players: dict[str, nn.Module] = {"autoencoder": generator}
        if discriminator is not None:
            self.players["discriminator"] = discriminator

    def players_at(self, step: int) -> tuple[str, ...]:
        return ("autoencoder",) if self.adversary is None else self.adversary.players_at(step)

    def count_turns(self, player: str, steps: int) -> int:
        return steps if self.adversary is None else self.adversary.count_turns(player, steps)

    def loss(self, player: str, batch: ImageBatch, draws: Streams, step: int) -> Loss:
        images = signed(to_device(batch.images, draws.device))
        if self.sizes is not None:
            images = self.sizes.apply(images, draws, step)
        images = images.contiguous(memory_format=image_layout(draws.device, images.shape[-2:]))
        if self.flip:
            images = _flipped(images, draws)
        if player == "discriminator":
            return self._discriminator_loss(images, draws)
        return self.weighted(self.terms(self.passed(images, draws), draws, step))

    def weighted(self, terms: list[Term]) -> Loss:
        """The weighted sum of the autoencoder's terms."""
        layers: dict[Layer, Tensor] = {
            "encoder": last_trained(self.autoencoder, "encoder"), "decoder": last_trained(self.autoencoder, "decoder")
        }
        return weighted_sum(terms, layers)

    def passed(self, images: Tensor, streams: Streams) -> "Passed":
        """Encode images (B, C, H, W) in [-1, 1] and decode the pairs."""
        encoding, pairs, draws = self._encoded(images, streams)
        decodings, velocity = self._decoded(pairs, streams)
        return Passed(encoding, pairs, draws, decodings, velocity)

    def terms(self, passed: "Passed", streams: Streams, step: int) -> list[Term]:
        """The terms of the autoencoder's loss."""
        cut = self._cut(passed.decodings, step)
        decodings = passed.decodings if cut is None else list(cut.copies)
        terms = [] if passed.velocity is None else [passed.velocity]
        terms += self._distances(passed.pairs, decodings, cut, pixels=passed.velocity is None)
        if self.adversary is not None and step >= self.adversary.entry:
            assert self.discriminator is not None
            value = hinge_generator(self.discriminator, passed.pairs, self._seen(decodings, streams, "decoding"))
            terms.append(Term("adversarial", value, self.adversary.weight_at(step), self.adversary.adaptive_weight, cut=cut))
        for name, method in self.methods.items():
            if (penalty := method.penalty(passed.encoding, passed.draws[name])) is not None:
                terms.append(Term(name, penalty, method.weight, method.adaptive_weight))
        return terms

    def _discriminator_loss(self, images: Tensor, streams: Streams) -> Loss:
        """Hinge loss on targets and decodings, computed without gradients of the autoencoder."""
        with torch.no_grad():
            passed = self.passed(images, streams)
        return self.judged([pair.images for pair in passed.pairs], passed.decodings, streams)

    def judged(self, targets: list[Tensor], decodings: list[Tensor], streams: Streams) -> Loss:
        """The discriminator's hinge loss; no gradients flow to the images."""
        assert self.discriminator is not None
        with torch.no_grad():
            if self.adversary is not None and self.adversary.rounded:
                decodings = [to_signed(to_uint8(x)).to(x.dtype) for x in decodings]
            targets = self._seen(targets, streams, "target")
            decodings = self._seen(decodings, streams, "decoding")
        values = hinge_discriminator(self.discriminator, targets, decodings)
        return Loss(values["discriminator"], {name: value.detach() for name, value in values.items()})

    def _seen(self, images: list[Tensor], streams: Streams, name: str) -> list[Tensor]:
        """Images as the discriminator gets them: RGB, and augmented if the recipe says so."""
        pictures, adversary = [as_rgb(x) for x in images], self.adversary
        if adversary is None or not adversary.augment:
            return pictures
        draws = [draw_augmentation(streams, adversary.augment, f"{name} {number}") for number in range(len(pictures))]
        return [augmented(x, draw) for x, draw in zip(pictures, draws, strict=True)]

    def _encoded(self, images: Tensor, streams: Streams) -> tuple[Encoding, list[Pair], dict[str, Any]]:
        """Apply all methods' hooks; return encoding, pairs and draws."""
        shapes = self._shapes(images)
        draws = {name: method.draw(streams, shapes) for name, method in self.methods.items()}
        for name, method in self.methods.items():
            images = method.before_encode(images, draws[name])
        posterior = self.autoencoder.encode(images)
        encoding = Encoding(images, posterior, posterior.sample(streams.batch("posterior", posterior.mean.shape)))
        pairs = [Pair(images, encoding.latents)]
        for name, method in self.methods.items():
            pairs = method.before_decode(pairs, draws[name])
        return encoding, pairs, draws

    def _decoded(self, pairs: list[Pair], streams: Streams) -> tuple[list[Tensor], Term | None]:
        """Decodings of the pairs; of a diffusion decoder one-step estimates at random times, and the error of its velocity."""
        if not isinstance(self.autoencoder, DiffusionAutoencoder):
            return [self.autoencoder.decode(pair.latents) for pair in pairs], None
        kind = self.reconstruction
        found = denoise(self.autoencoder, pairs, streams, Flow(time=kind.time))
        errors = [pair.weight * F.mse_loss(x.velocity, x.target) for pair, x in zip(pairs, found, strict=True)]
        return [x.images for x in found], Term("velocity", torch.stack(errors).sum(), kind.weight, reconstruction=True)

    def _cut(self, decodings: list[Tensor], step: int) -> Cut | None:
        """A cut at the decodings if a term of the step has an adaptive weight; None: terms are differentiated with the rest."""
        adversary = self.adversary
        ratios = [method.adaptive_weight for method in self.methods.values()]
        if adversary is not None and step >= adversary.entry:
            ratios.append(adversary.adaptive_weight)
        return Cut.of(decodings) if any(ratios) and all(x.requires_grad for x in decodings) else None

    def _distances(self, pairs: list[Pair], decodings: list[Tensor], cut: Cut | None, *, pixels: bool) -> list[Term]:
        """The reconstruction terms between images: by pixels if asked, by wavelet bands, and the perceptual distance."""
        terms, kind = [], self.reconstruction
        if pixels:
            pixel: Callable[[Tensor, Tensor], Tensor] = F.l1_loss if kind.loss == "l1" else F.mse_loss
            value = _weighted(pairs, decodings, lambda x, y: pixel(x.float(), y.float()))
            terms.append(Term(kind.loss, value, kind.weight, reconstruction=True, cut=cut))
        if self.wavelet is not None:
            bands = self.wavelet.loss
            value = _weighted(pairs, decodings, lambda x, y: bands(x.float(), y.float()))
            terms.append(Term("wavelet", value, self.wavelet.weight, reconstruction=True, cut=cut))
        if self.perceptual is not None:
            network, weight = self.perceptual
            value = _weighted(pairs, decodings, lambda x, y: network(x, y).mean())
            terms.append(Term("lpips", value, weight, reconstruction=True, cut=cut))
        return terms

    def _shapes(self, images: Tensor) -> Shapes:
        count, channels, height, width = images.shape
        factor = self.autoencoder.downsample
        latents = (count, self.autoencoder.latent_channels, height // factor, width // factor)
        return Shapes((count, channels, height, width), latents)


def last_trained(autoencoder: TrainableAutoencoder, half: Layer) -> Tensor:
    """The weight at which the gradients of adaptive weights of a half are measured: that of its last convolution.

    If it is frozen: the last trained weight of the half, else the same of the other half.
    """
    last = {"encoder": autoencoder.encoder_last_layer, "decoder": autoencoder.decoder_last_layer}
    weights = dict(autoencoder.named_parameters())
    for name in sorted(last, key=lambda name: name != half):
        if last[name].requires_grad:
            return last[name]
        if trained := [weights[one] for one in autoencoder.part(name) if weights[one].requires_grad and weights[one].ndim > 1]:
            return trained[-1]
    return last[half]


def _weighted(pairs: list[Pair], decodings: list[Tensor], compare: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    terms = [pair.weight * compare(x, pair.images) for pair, x in zip(pairs, decodings, strict=True)]
    return torch.stack(terms).sum()


def _flipped(images: Tensor, draws: Streams) -> Tensor:
    mirrored = draws.uniform("flip", (len(images),)) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
