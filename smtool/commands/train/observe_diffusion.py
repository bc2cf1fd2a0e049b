"""Validation of a diffusion run: samples, and their distance to the training images."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from smtool.data import ImageShards
from smtool.evaluation.quick_distances import quick_distances
from smtool.inference.diffusion_model import DiffusionModel
from smtool.inference.generate import class_labels, generate
from smtool.recipe import TrainDiT
from smtool.report.grids import image_grid
from smtool.report.trackers import Trackers


class DiffusionObserver:
    """Draws samples from the same noise and classes at every validation, with the weights that are exported.

    floors: lower bounds of the losses for Gaussian latents (`band_floors.floor_values`), for the log.
    """

    def __init__(
        self,
        tables: TrainDiT,
        images: ImageShards,
        model: Callable[[int], DiffusionModel],
        device: str,
        weights_dir: Path | None,
        floors: Mapping[str, float],
    ) -> None:
        self.tables, self.images, self.model, self.floors = tables, images, model, floors
        self.device, self.weights_dir = device, weights_dir

    def look(self, trackers: Trackers, step: int) -> dict[str, float]:
        """Log a grid of samples; return distances and floors. The distances are rough, because num_images is small."""
        table, model = self.tables.validation, self.model(step)
        training = model.network.training
        model.network.eval()
        count = table.num_images
        labels = class_labels(count, model.num_classes, "balanced", seed=self.tables.seed)
        drawn = generate(
            model,
            range(count),
            seed=self.tables.seed,
            sampler=self.tables.sampler,
            labels=labels,
            batch=self.tables.data.batch,
            device=self.device,
        )
        samples = torch.cat([images for _, images in drawn])
        model.network.train(training)
        trackers.image(step, "samples", image_grid(samples[: table.grid]))
        distances = quick_distances(
            samples,
            self.images,
            features=table.features,
            num_images=count,
            device=self.device,
            weights_dir=self.weights_dir,
        )
        return {**{f"val_{name}": value for name, value in distances.items()}, **self.floors}
