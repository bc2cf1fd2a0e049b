"""The predicted memory of the activations of a recipe's training step, with and without recomputing them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smtool.networks.trainable import DiffusionAutoencoder
from smtool.recipe.train_ae import TrainAE
from smtool.recipe.train_dit import TrainDiT
from smtool.training.activation_memory import gib, training_bytes


@dataclass(frozen=True)
class Activations:
    """Predicted bytes in a step of one rank. plain, checkpoint: with these values of `memory`; samples: in a micro-batch."""

    plain: int
    checkpoint: int
    samples: int

    def __add__(self, other: "Activations") -> "Activations":
        """Of two networks whose activations are kept at the same time, for the same samples."""
        return Activations(self.plain + other.plain, self.checkpoint + other.checkpoint, self.samples)

    def said(self) -> str:
        return f'about {gib(self.plain)} for {self.samples:,} samples, {gib(self.checkpoint)} with memory = "checkpoint"'

    def advice(self, memory: str) -> str:
        """What to change when the memory does not suffice. memory: the recipe's value."""
        smaller = "lower data.batch, or raise accumulate, which computes the batch in smaller parts"
        if memory == "checkpoint":
            return f"Activations need about {gib(self.checkpoint)} for {self.samples:,} samples: {smaller}."
        return (f"memory = \"checkpoint\" needs about {gib(self.checkpoint)} for activations instead of {gib(self.plain)}: "
                f"--set memory=checkpoint; or {smaller}.")


def autoencoder_activations(tables: TrainAE, *, world: int = 1) -> Activations:
    """Of one encoding and one decoding of the largest training images.

    Losses, discriminator, LPIPS and further pairs of methods need more.
    """
    samples = max(1, tables.data.batch // (tables.accumulate * world))
    shape = tables.largest_shapes.images[1:]

    def loss(network: nn.Module) -> Tensor:
        posterior = network.encode(torch.empty(samples, *shape, device="meta"))  # type: ignore[operator]
        images: Tensor
        if isinstance(network, DiffusionAutoencoder):      # in training it denoises once, whatever its sampling steps are
            x_t, t = torch.empty(samples, *shape, device="meta"), torch.empty(samples, device="meta")
            images = network.velocity(x_t, t, posterior.mean)
        else:
            images = network.decode(posterior.mean)  # type: ignore[operator]
        return images.square().mean()

    sizes = [training_bytes(tables.model.build, loss, recomputed=way, precision=tables.precision) for way in (False, True)]
    return Activations(sizes[0], sizes[1], samples)


def transformer_activations(tables: TrainDiT, shape: tuple[int, int, int], num_classes: int, *, world: int = 1) -> Activations:
    """Of the transformer on latents of this shape (C, h, w); alignment and teacher need more."""
    samples = max(1, tables.data.batch // (tables.accumulate * world))

    def loss(network: nn.Module) -> Tensor:
        x, t = torch.empty(samples, *shape, device="meta"), torch.empty(samples, device="meta")
        labels = torch.zeros(samples, dtype=torch.int64, device="meta") if num_classes else None
        output: Tensor = network(x, t, labels).output
        return output.square().mean()

    def build() -> nn.Module:
        return tables.model.build(shape, num_classes)

    sizes = [training_bytes(build, loss, recomputed=way, precision=tables.precision) for way in (False, True)]
    return Activations(sizes[0], sizes[1], samples)
