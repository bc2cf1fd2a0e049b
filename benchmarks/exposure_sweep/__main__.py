"""Draw samples of finished runs with several epsilon scales and numbers of steps; compare their distances to training images.

All sets of samples begin with equal noise, so that differences are paired. Results are kept in a JSON file and not repeated.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.exposure_sweep.figure import sweep_figure
from benchmarks.exposure_sweep.rows import Resampled, Row, change
from smtool.data import open_images
from smtool.data.batches import to_signed, to_uint8
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.inference.diffusion_model import DiffusionModel, find_diffusion, read_diffusion
from smtool.inference.features import pooled_features
from smtool.inference.generate import class_labels, sample_latents
from smtool.metrics.frechet import Gaussian
from smtool.randomness import generator
from smtool.report.plots import figure_bytes
from smtool.spectrum import dct2
from smtool.spectrum.transfer import band_of_cell

BATCH = 100
ENCODED = 400      # training images whose latents say what power is right
BANDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exposure_sweep", description=__doc__)
    parser.add_argument("runs", nargs="*", help="finished runs of train-dit, those without input perturbation first")
    parser.add_argument("--data", default="data/cifar10", help="prepared folder of the training images")
    parser.add_argument("--steps", nargs="+", type=int, default=[10], help="numbers of steps of the recipe's sampler")
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0], help="epsilon scales; 1 is always run, and first")
    parser.add_argument("--num-images", type=int, default=1000, help="samples of each set")
    parser.add_argument("--reference", type=int, default=2000, help="training images to compare with")
    parser.add_argument("--features", default="resnet56", help="extractor")
    parser.add_argument("--out", type=Path, default=Path("exposure.json"), help="results; those that it already holds are kept")
    parser.add_argument("--figure", type=Path, help="PNG of the changes over the epsilon scale")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [Row.of(row) for row in json.loads(arguments.out.read_text())] if arguments.out.exists() else []
    extractor = load_extractor(arguments.features)
    shards = open_images(arguments.data, "train", image_size=32)
    order = torch.randperm(len(shards), generator=generator("exposure sweep", "reference"))[: arguments.reference]
    images = to_uint8(shards.read(order.tolist()).images)
    reference = Gaussian.of(pooled_features(extractor, images.split(BATCH)))
    scales = [1.0, *(scale for scale in arguments.scales if scale != 1)]
    plain: dict[tuple[str, int, int], Resampled] = {}
    for run in arguments.runs:
        model = read_diffusion(find_diffusion(run), "cpu")
        process, seed, gamma = model.tables.process.kind, model.tables.seed, model.tables.process.input_perturbation
        right = band_power(model.stats.normalize(model.autoencoder.encode(to_signed(images[:ENCODED])).mode()))
        for steps in arguments.steps:
            mine = None
            for scale in scales:
                known = (process, gamma, seed, steps, scale)
                if scale != 1 and known in {row.key for row in rows}:
                    continue
                latents = torch.cat(list(drawn(model, arguments.num_images, steps, scale)))
                found = Resampled(features_of(model, latents, extractor), reference)
                mine = mine or found
                if gamma == 0 and scale == 1:
                    plain[process, seed, steps] = found
                first = plain.get((process, seed, steps))
                if known in {row.key for row in rows}:
                    continue
                rows.append(Row(
                    *known, num_images=arguments.num_images, distance=found.distance, error=found.error,
                    from_plain=change(found, mine), from_first=None if first is None else change(found, first),
                    power=tuple((band_power(latents) / right).tolist()),
                ))  # fmt: skip
                arguments.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
                print(*known, f"{found.distance:.2f}", f"{time.process_time():.0f} core-seconds", flush=True)
    if arguments.figure:
        arguments.figure.write_bytes(figure_bytes(sweep_figure(rows), "png"))


@torch.no_grad()
def drawn(model: DiffusionModel, count: int, steps: int, scale: float) -> Iterator[Tensor]:
    """Normalized latents of images 0 ... count - 1."""
    sampler = model.tables.sampler.model_copy(update={"steps": steps, "epsilon_scale": scale})
    labels = class_labels(count, model.num_classes, "balanced", seed=0)
    for part in torch.arange(count).split(BATCH):
        chosen = None if labels is None else torch.tensor(labels)[part]
        yield sample_latents(model, part.tolist(), seed=0, sampler=sampler, labels=chosen)


@torch.no_grad()
def features_of(model: DiffusionModel, latents: Tensor, extractor: Extractor) -> Tensor:
    decoded = (to_uint8(model.autoencoder.decode(model.stats.denormalize(part))) for part in latents.split(BATCH))
    return pooled_features(extractor, decoded)


def band_power(latents: Tensor) -> Tensor:
    """Mean square of latents (N, C, h, w) in bands of DCT frequency, from low to high: (BANDS,)."""
    band = band_of_cell(*latents.shape[-2:], BANDS).flatten()
    power = dct2(latents.detach().double()).square().mean((0, 1)).flatten()
    return torch.stack([power[band == k].mean() for k in range(BANDS)])


if __name__ == "__main__":
    main()
