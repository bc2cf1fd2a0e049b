"""HTML page of a race: ranking, every seed, curves, samples, spectra, predictors, cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smtool.commands.race.figures import curves_figure, predictors_figure, seeds_figure, spectra_figure
from smtool.commands.race.images import training_images
from smtool.commands.race.predictor_values import values_table
from smtool.commands.race.result import PooledResult, RaceResult, Result
from smtool.commands.race.scoring import GRID
from smtool.commands.race.tables import (
    H100_HOURS,
    cost_table,
    metrics_table,
    pair_table,
    predictor_table,
    ranking_table,
    told,
)
from smtool.commands.race.trial import scores_path
from smtool.data.batches import to_uint8
from smtool.report.grids import image_grid
from smtool.report.html import Page
from smtool.report.plots import figure_bytes
from smtool.storage import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(result: RaceResult, folder: Path, *, runs: Path | None = None) -> list[Path]:
    """Write report.html and figures/*.png. Returns their paths. runs: folder of the race with the training logs, by default
    `folder`.
    """
    runs = runs or folder
    page = Page("smtool race: on which latents does a small transformer generate best?")
    _ranking(page, result)
    figures = {}
    if result.trials:
        figures = {
            "seeds": seeds_figure(result),
            "curves": curves_figure(result, runs),
            "spectra": spectra_figure(result, runs),
        } | ({"forecasts": predictors_figure(result)} if result.predictor_correlations else {})
        _seeds(page, figures)
        _samples(page, result, (folder, runs))
        _predictors(page, result, figures)
    _cost(page, result)
    return _write(page, result, figures, folder)


def write_pooled_report(result: PooledResult, folder: Path) -> list[Path]:
    """Write the page of several races together. Curves, samples, spectra and costs are on the pages of the races."""
    page = Page("smtool race: several races together")
    page.text(f"Pooled races: {', '.join(result.races)}. A racer with the same weights in two races counts once.")
    _ranking(page, result)
    figures = {"seeds": seeds_figure(result), "forecasts": predictors_figure(result)}
    page.section("Every seed")
    _strips(page, figures["seeds"])
    _predictors(page, result, figures)
    return _write(page, result, figures, folder)


def _write(page: Page, result: Result, figures: Mapping[str, "Figure"], folder: Path) -> list[Path]:
    page.data("race", result.json_value(exclude={"trials"}))
    page.write(folder / "report.html")
    for name, figure in figures.items():
        write_bytes(folder / "figures" / f"{name}.png", figure_bytes(figure, "png"))
    return [folder / "report.html", *(folder / "figures" / f"{name}.png" for name in figures)]


def _ranking(page: Page, result: Result) -> None:
    page.text(
        f"{len(result.racers)} racers, {len(result.seeds)} seeds, images of {result.images.image_size.words}. The same "
        f"transformer is trained on the latents of every racer: {result.tokens} tokens, {result.step:,} steps, and for each seed "
        "the same order of images, noise and initial weights. Then the same number of samples is drawn from the same noise."
    )
    if result.trials:
        page.table(ranking_table(result))
    page.section("Significant differences")
    for sentence in told(result):
        page.text(sentence)
    page.text("A difference is significant if the 95 % interval of the differences, paired by seed, excludes 0.")
    if result.trials:
        page.table(pair_table(result))
        for features in list(result.rankings)[1:]:
            page.table(ranking_table(result, features))
        if (table := metrics_table(result)) is not None:
            page.table(table)
    for sentence in result.partial:
        page.text(sentence)
    for key, error in result.broken.items():
        page.text(f"{key} failed ({error.kind}): {error.message} The race continued without it.")


def _strips(page: Page, figure: "Figure") -> None:
    page.figure(
        figure,
        alt="Generation distance, reconstruction distance and their gap of every racer, one dot for each seed.",
        caption="Dots are seeds, the bar is their mean, the line its 95 % interval. A decoder that needs more training has a "
        "large reconstruction distance; latents that are hard to learn have a large gap.",
    )


def _seeds(page: Page, figures: Mapping[str, "Figure"]) -> None:
    page.section("Every seed")
    _strips(page, figures["seeds"])
    page.section("Curves")
    page.figure(
        figures["curves"],
        alt="PSNR of the autoencoders, loss of the transformers, and distance of their samples, against steps.",
        caption="Means over seeds; bands show the range of the seeds. If a PSNR still rises, the decoder needs more training. "
        "Losses of different latents are not comparable, because their floors differ. Distances are of the few samples that "
        "validations draw during training.",
    )
    page.section("Spectra")
    page.figure(
        figures["spectra"],
        alt="Left: power of samples and reconstructions over power of the images. Right: power of latents over the target.",
        caption="Left, means over seeds: where the dashed line is not at 0 dB, the autoencoder removes or adds power; where the "
        "solid line differs from the dashed one, the transformer does. Right, first seed: normalized latents against images "
        "flattened with delta 1.",
    )


def _samples(page: Page, result: RaceResult, folders: Sequence[Path]) -> None:
    """The first samples of every racer, from the first of the folders that holds them."""
    page.section("Samples")
    shards = training_images(result.images)
    shown = shards.read(range(min(GRID, len(shards)))).images
    pictures = [(image_grid(to_uint8(shown)), "the first training images")]
    for racer in result.racers:
        paths = [scores_path(folder, f"{racer}-seed{result.seeds[0]}").with_suffix(".png") for folder in folders]
        if path := next((path for path in paths if path.is_file()), None):
            caption = f"{racer}: the first samples of seed {result.seeds[0]}, from the same noise for all racers"
            pictures.append((_picture(path), caption))
    page.pixels_beside(pictures)


def _picture(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _predictors(page: Page, result: Result, figures: Mapping[str, "Figure"]) -> None:
    if not result.points:
        return
    page.section("Predictors of the ranking")
    page.table(values_table(result))
    if not result.predictor_correlations:
        page.text(f"{len(result.points)} autoencoders are too few for a rank correlation; at least three are needed.")
        return
    first, *others = result.predictor_correlations
    page.table(predictor_table(result, first))
    page.figure(
        figures["forecasts"],
        alt="For each predictor, its value against the generation distance, one point for each autoencoder.",
        caption="Each point is an autoencoder (mean over seeds). rho: Spearman's rank correlation; p: its p-value. "
        f"Distances by {first}.",
    )
    for features in others:
        page.table(predictor_table(result, features))


def _cost(page: Page, result: RaceResult) -> None:
    page.section("Cost")
    page.table(cost_table(result))
    page.text(
        f"For comparison: a transformer of 100,000 steps on 8 GPUs takes {H100_HOURS:g} H100-hours for each autoencoder. A race "
        "answers a smaller question: which latents a small transformer learns best in a short time, on these images."
    )
