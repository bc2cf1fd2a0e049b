"""One pass over images: encode, decode, convert to uint8, apply every judge. Only numbers and features are kept, not images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smtool.data import ImageShards, validation_batches
from smtool.data.batches import ImageBatch, to_uint8
from smtool.errors import DataError
from smtool.evaluation.judges import Judges
from smtool.features.extractor import Extractor
from smtool.features.protocol import Protocol
from smtool.inference.encode import mode, sampled_by_number
from smtool.inference.rank_files import Pass, shared_pass
from smtool.inference.reconstruct import reconstructed
from smtool.networks.tokenizer import Tokenizer
from smtool.training.distributed import Ranks


@dataclass(frozen=True)
class Measurements:
    """Results of a pass over `count` images.

    pairs: score name -> (N,), one number per image; features: score name -> (N, D) of images and of reconstructions.
    """

    count: int
    pairs: dict[str, Tensor]
    features: dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class SharedReading:
    """Passes that ranks share through files in `folder`. The first rank gets the whole result, the others an empty one."""

    batch: int
    ranks: Ranks
    folder: Path | None

    def reconstructions(
        self,
        autoencoder: Tokenizer,
        images: ImageShards,
        count: int,
        judges: Judges,
        protocol: Protocol,
        *,
        seed: int,
        report: Callable[[int, int], object],
    ) -> Measurements:
        """Measure the reconstructions of the first `count` images."""

        def measure(positions: range) -> dict[str, Tensor]:
            def told(done: int) -> None:
                report(done, len(positions))

            batches = self._batches(images, positions)
            found = measure_reconstructions(
                autoencoder, batches, judges, protocol, seed=seed, first=positions.start, report=told
            )
            sides = {f"{side}/{name}": pair[i] for name, pair in found.features.items() for i, side in enumerate("xy")}
            return {f"pair/{name}": values for name, values in found.pairs.items()} | sides

        found = self._shared(measure, count)
        if not self.ranks.first:
            return Measurements(count, {}, {})
        return Measurements(
            count,
            {judge.name: found[f"pair/{judge.name}"] for judge in judges.pairs},
            {e.score: (found[f"x/{e.score}"], found[f"y/{e.score}"]) for e in judges.extractors},
        )

    def features(
        self, images: ImageShards, count: int, extractors: Sequence[Extractor], protocol: Protocol
    ) -> dict[str, Tensor]:
        """Score name -> features (N, D) of the first `count` images."""
        return self._shared(lambda positions: features_of(extractors, self._batches(images, positions), protocol), count)

    def _shared(self, measure: Pass, count: int) -> dict[str, Tensor]:
        return shared_pass(measure, count, batch=self.batch, ranks=self.ranks, folder=self.folder)

    def _batches(self, images: ImageShards, positions: range) -> Iterable[ImageBatch]:
        return validation_batches(images, batch=self.batch, first=positions.start, limit=positions.stop)


@torch.no_grad()
def measure_reconstructions(
    autoencoder: Tokenizer,
    batches: Iterable[ImageBatch],
    judges: Judges,
    protocol: Protocol,
    *,
    seed: int = 0,
    first: int = 0,
    report: Callable[[int], None] | None = None,
) -> Measurements:
    """Reconstruct every image once and apply the judges.

    Posterior noise depends on (seed, number of the image), not on the batch size. first: number of the first image.
    """
    pairs: dict[str, list[Tensor]] = {judge.name: [] for judge in judges.pairs}
    features: dict[str, list[tuple[Tensor, Tensor]]] = {extractor.score: [] for extractor in judges.extractors}
    count = 0
    draw = sampled_by_number(seed, "posterior") if protocol.posterior == "sample" else mode
    for part in reconstructed(autoencoder, _checked(batches, autoencoder, judges), draw, first=first):
        x, y = to_uint8(part.images), to_uint8(part.decoded, protocol.rounding)
        coded_x, coded_y = protocol.coded(x), protocol.coded(y)
        seen = {"coded": (coded_x, coded_y), "uint8": (x, y), "float": (part.images, part.decoded)}
        for judge in judges.pairs:
            pairs[judge.name].append(judge.measure(*seen[judge.pixels]).cpu().double())
        for extractor in judges.extractors:
            features[extractor.score].append((extractor(coded_x).cpu(), extractor(coded_y).cpu()))
        count += len(x)
        if report:
            report(count)
    return Measurements(
        count,
        {name: torch.cat(parts) for name, parts in pairs.items()},
        {name: (torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])) for name, parts in features.items()},
    )


@torch.no_grad()
def features_of(extractors: Sequence[Extractor], batches: Iterable[ImageBatch], protocol: Protocol) -> dict[str, Tensor]:
    """Score name -> features (N, D) of the images after the protocol's codec."""
    features: dict[str, list[Tensor]] = {extractor.score: [] for extractor in extractors}
    for batch in batches:
        coded = protocol.coded(to_uint8(batch.images))
        for extractor in extractors:
            features[extractor.score].append(extractor(coded.to(extractor.device)).cpu())
    return {name: torch.cat(parts) for name, parts in features.items()}


def _checked(batches: Iterable[ImageBatch], autoencoder: Tokenizer, judges: Judges) -> Iterator[ImageBatch]:
    """Yield the batches, after checking the size of the first images."""
    for number, batch in enumerate(batches):
        if number == 0:
            _check_sides(batch.images, autoencoder, judges)
        yield batch


def _check_sides(images: Tensor, autoencoder: Tokenizer, judges: Judges) -> None:
    """Raise DataError if the autoencoder or a score does not accept images of this size."""
    height, width = images.shape[-2:]
    try:
        autoencoder.latent_shape(height, width)
    except ValueError as error:
        raise DataError(f"{error}.", hint="Prepare the images at another size, or pass --data.") from error
    too_small = [judge for judge in judges.pairs if min(height, width) < judge.smallest_side]
    if too_small:
        needs = ", ".join(f"{judge.name} at least {judge.smallest_side} px" for judge in too_small)
        raise DataError(f"images of {height}x{width} are too small: {needs}.", hint="Use other scores or larger images.")
