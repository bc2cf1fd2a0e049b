"""The page of `smtool quickstart`: what DSM does, what this run shows, and the next commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smtool.commands.quickstart.findings import LIVE, following_sentence, psnr_sentence, spectra_sentence
from smtool.commands.quickstart.generation import Generation
from smtool.commands.quickstart.generation_page import generation_sections
from smtool.commands.quickstart.scores import Look, score_tables
from smtool.diffusability.page import add_plot, chapters, overview, plots, tables
from smtool.diffusability.report import Report
from smtool.diffusability.strips import ROWS_REMOVED, Following
from smtool.recipe import Recipe, TrainAE
from smtool.report.html import Page
from smtool.report.plots import DIFFERENCE_GAIN
from smtool.report.plots.strips import Block, strips_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STRIPS_CAPTION = (
    "n of the 15 anti-diagonals of every 8x8 block of DCT coefficients are removed, from the highest frequency down. Top row: "
    "from the image, LP x. Below: from the latent, which is then decoded, D(LP z); under each picture its PSNR against the "
    "picture at the top of its column. Validation crops: the autoencoders were trained on the other half of each photograph."
)


@dataclass(frozen=True)
class Study:
    """All that the page shows.

    specimens, live: name -> label, of the autoencoders that come with smtool and of those trained here. looks, following: by
    label. spectrum: of the specimens. generations: by label of the specimen.
    """

    recipes: Mapping[str, Recipe[TrainAE]]
    runs: Mapping[str, Path]
    specimens: Mapping[str, str]
    live: Mapping[str, str]
    specimen_strips: Sequence[Block]
    live_strips: Sequence[Block]
    following: Following
    looks: Mapping[str, Look]
    spectrum: Report
    generations: Mapping[str, Generation]


def quickstart_page(study: Study) -> Page:
    page = Page("smtool quickstart: what DSM does to an autoencoder")
    _what_dsm_does(page, study)
    _trained_here(page, study)
    page.section("Reconstructions")
    page.text(psnr_sentence({label: look.evaluation for label, look in study.looks.items()}, *study.specimens.values()))
    for label in study.specimens.values():
        page.pixels(study.looks[label].grid, alt=f"{label}: inputs, reconstructions and differences", caption=f"{label}: input, "
                    f"reconstruction, {DIFFERENCE_GAIN:g} times their difference; validation crops, mean of the posterior")
    for table in score_tables(study.looks):
        page.table(table)
    generation_sections(page, study.generations)
    page.section("The spectra in full")
    page.text("Verdicts, transfer matrices, the noise crossing and more: spectrum/report.html beside this page.")
    for plot in plots(chapters(study.spectrum)):
        if plot.name in ("physical", "reference", "low-pass"):
            add_plot(page, plot)
    for table in tables(study.spectrum):
        page.table(table)
    _next_commands(page, study)
    return page


def first_figures(study: Study) -> dict[str, "Figure"]:
    """The two figures of the specimens that open the page, by name."""
    return {"strips": strips_figure(study.specimen_strips, _columns()), "overview": overview(study.spectrum)}


def _what_dsm_does(page: Page, study: Study) -> None:
    figures = first_figures(study)
    size = study.looks[study.specimens["plain"]].num_parameters
    page.section("What DSM does")
    page.text(
        "DSM, Decoding Spectrum Matching (arXiv 2603.14645), trains a decoder to turn a low-passed latent into the equally "
        "low-passed image. A diffusion model builds latents from low to high frequencies, so a decoder should answer each latent "
        "frequency with its own image frequency. A reconstruction score does not show whether it does; this picture does."
    )
    page.figure(
        figures["strips"],
        alt="Two photographs: low-passed images, and decodings of low-passed latents without and with DSM.",
        caption=_STRIPS_CAPTION,
    )
    page.text(following_sentence(study.following, *study.specimens.values()))
    page.text(
        f"Both autoencoders come with smtool: {' and '.join(study.specimens.values())}, the same network ({size / 1e6:.2f} "
        "million parameters), data, steps and seed (recipes/specimen); only the second has DSM. All numbers on this page were "
        "measured in this run."
    )
    page.figure(
        figures["overview"],
        alt="Left: power spectra of images, target and latents. Right: PSNR after low-passing latents and images.",
        caption="Left: latents on the dashed line are a flattened copy of the images. Right: a decoder that follows the removal "
        "of high frequencies from its latent stays level or rises (solid); dashed is what it reaches by ignoring the removal.",
    )
    page.text(spectra_sentence(study.spectrum))


def _trained_here(page: Page, study: Study) -> None:
    tables = next(iter(study.recipes.values())).tables
    page.section("The same, trained here")
    size = study.looks[study.live["plain"]].num_parameters
    page.text(
        f"Two smaller networks ({size / 1e6:.2f} million parameters) were trained in this run: "
        f"{' and '.join(study.live.values())}, {tables.steps} steps of {tables.data.batch} crops of "
        f"{tables.data.image_size.words}, one seed. All photographs ship inside scikit-image."
    )
    page.figure(
        strips_figure(study.live_strips, _columns()),
        alt="The same photographs, decoded by the two autoencoders that were trained in this run.",
        caption="As above, decoded by the autoencoders trained here.",
    )
    page.text(following_sentence(study.following, *study.live.values()))
    page.text(LIVE)


def _columns() -> list[str]:
    return [f"n = {rows}" for rows in ROWS_REMOVED]


def _next_commands(page: Page, study: Study) -> None:
    transformer = list(study.generations.values())[-1].run
    page.section("Next")
    page.text("The same steps as single commands, and the next ones:")
    page.commands(
        "smtool spectrum specimen:plain specimen:dsm --plot --published celeba/dsm",
        f"smtool eval {study.runs['dsm']} --psnr --ssim",
        f"smtool train-dit quickstart/sit --set seed=1 --out {transformer}-seed1",
        f"smtool sample {transformer} --num-images 64 --sampler euler --steps 50 --seed 1",
        f"smtool eval {transformer} --features random",
        "smtool recipes list",
        "smtool train-ae recipes/dsm.toml",
        "smtool train-dit recipes/sit.toml",
        "smtool prepare PHOTOGRAPHS --size 64 --out data/mine",
        "smtool train-ae recipes/dsm.toml --data data/mine --out runs/mine",
        "smtool spectrum runs/mine --plot --data data/mine",
    )
