"""Validation of a diffusion run: samples, and their distance to the training images."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from smtool.data import ImageShards
from smtool.evaluation.quick_distances import feature_distances, image_features, quick_extractor, refuse_few, sample_features
from smtool.inference.diffusion_model import DiffusionModel
from smtool.inference.generate import class_labels, generate
from smtool.recipe import TrainDiT
from smtool.report.grids import image_grid
from smtool.report.trackers import Trackers
from smtool.training.distributed import Ranks
from smtool.training.selection import evaluating


class DiffusionObserver:
    """Draws samples from the same noise and classes at every validation, with the weights that are exported.

    The noise of a sample depends on its number, not on the rank that draws it. floors: lower bounds of the losses for Gaussian
    latents (`band_floors.floor_values`), for the log. Raises DataError for fewer than 2 samples or images.
    """

    def __init__(
        self,
        tables: TrainDiT,
        images: ImageShards,
        model: Callable[[int], DiffusionModel],
        ranks: Ranks,
        weights_dir: Path | None,
        floors: Mapping[str, float],
    ) -> None:
        self.tables, self.images, self.model, self.floors, self.ranks = tables, images, model, floors, ranks
        table = tables.validation
        self.count, self.num_reference = table.num_images, min(table.num_images, len(images))
        refuse_few(self.count, images)
        self.extractor = quick_extractor(table.features, ranks.device, weights_dir)

    @cached_property
    def _reference(self) -> Tensor:
        """Features of this rank's share of the training images."""
        return image_features(self.extractor, self.images, self.ranks.positions(self.num_reference))

    def share(self, step: int) -> dict[str, Tensor]:
        """Rows of this rank: the first samples, features of all, and features of training images."""
        model, numbers = self.model(step), self.ranks.positions(self.count)
        labels = class_labels(self.count, model.num_classes, "balanced", seed=self.tables.seed)
        with evaluating(model.network):
            drawn = generate(
                model,
                numbers,
                seed=self.tables.seed,
                sampler=self.tables.sampler,
                labels=None if labels is None else [labels[number] for number in numbers],
                batch=self.tables.data.batch // self.ranks.world,
                device=self.ranks.device,
            )
            samples = torch.cat([images for _, images in drawn])
        shown = -(-self.tables.validation.grid // self.ranks.world)
        return {
            "samples": samples[:shown], "features": sample_features(self.extractor, samples), "reference": self._reference,
        }

    def look(self, trackers: Trackers, step: int, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """Log a grid of samples; return distances and floors. The distances are rough, because num_images is small."""
        trackers.image(step, "samples", image_grid(rows["samples"][: min(self.tables.validation.grid, self.count)]))
        found, reference = rows["features"][: self.count], rows["reference"][: self.num_reference]
        distances = feature_distances(self.extractor, found, reference)
        return {**{f"val_{name}": value for name, value in distances.items()}, **self.floors}
