"""The linear probe of a race: how well a linear classifier tells the classes of the race's images apart by their latents."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from smtool.commands.race.trial import Measured
from smtool.data import ImageShards, validation_batches
from smtool.data.batches import ImageBatch
from smtool.inference.encode import encoded_latents, sampled_in_order
from smtool.metrics.linear_probe import linear_probe, pooled
from smtool.networks.posterior import LatentStats
from smtool.networks.tokenizer import Tokenizer
from smtool.randomness import generator

MOST_LATENTS = 10_000
_BATCH = 64


class Labels:
    """Passes batches on and keeps their labels. all: (N,) of the batches so far; None if any image has none."""

    def __init__(self, batches: Iterable[ImageBatch]) -> None:
        self._batches = batches
        self._found: list[Tensor | None] = []

    def __iter__(self) -> Iterator[ImageBatch]:
        for batch in self._batches:
            self._found.append(batch.labels)
            yield batch

    @property
    def all(self) -> Tensor | None:
        known = [labels.cpu() for labels in self._found if labels is not None]
        return torch.cat(known) if known and len(known) == len(self._found) else None


def probed(
    autoencoder: Tokenizer, validation: ImageShards, latents: Tensor, labels: Tensor | None, stats: LatentStats
) -> Measured:
    """Accuracy on the first MOST_LATENTS validation images, after training on normalized latents (N, C, h, w) with labels (N,);
    or a reason. Latents are sampled; a sample's noise averages out over positions."""
    if labels is None:
        return Measured(reason="the training images have no classes")
    batches = Labels(validation_batches(validation, batch=_BATCH, limit=MOST_LATENTS))
    drawn = encoded_latents(autoencoder, batches, sampled_in_order(generator("race", "probe")))
    test = torch.cat([pooled(stats.normalize(part.float()).cpu()) for part in drawn])
    if batches.all is None:
        return Measured(reason="the validation images have no classes")
    try:
        found = linear_probe(pooled(latents.cpu()), labels, test, batches.all)
    except ValueError as error:
        return Measured(reason=str(error))
    return Measured(value=found.accuracy, half_width=1.96 * found.error, chance=found.chance)
