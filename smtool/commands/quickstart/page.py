"""The page of `smtool quickstart`: what was done, what this run shows, and how to go on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smtool.commands.quickstart.generation import Generation
from smtool.commands.quickstart.generation_page import generation_sections
from smtool.commands.quickstart.scores import Look, score_cell, score_tables
from smtool.diffusability.page import add_plot, chapters, overview, plots, tables
from smtool.diffusability.report import Report
from smtool.diffusability.sections.low_pass import LowPass
from smtool.diffusability.sections.parts import headline, shown_estimate
from smtool.diffusability.sections.physical import Decibel, Delta, Slope
from smtool.recipe import Recipe, TrainAE
from smtool.report.html import Page
from smtool.report.plots import DIFFERENCE_GAIN
from smtool.report.tables import interval


@dataclass(frozen=True)
class Study:
    """All that the page shows, by name of the autoencoder; spectrum is what `spectrum` returned."""

    recipes: Mapping[str, Recipe[TrainAE]]
    runs: Mapping[str, Path]
    looks: Mapping[str, Look]
    spectrum: Report
    generations: Mapping[str, Generation]


def quickstart_page(study: Study) -> Page:
    page = Page("smtool quickstart: two autoencoders, their spectra, and what diffusion makes of them")
    _introduction(page, study)
    page.section("Spectra and low-pass reconstruction")
    page.figure(
        overview(study.spectrum),
        alt="Left: power spectra of images, target and latents. Right: PSNR after low-passing latents and images.",
        caption="Left: latents on the dashed line are a flattened copy of the images. Right: a decoder that follows "
        "the removal of high frequencies from its latent stays level or rises (solid); dashed is what it reaches by ignoring it.",
    )
    for sentence in findings(study):
        page.text(sentence)
    page.section("Reconstructions")
    for name, look in study.looks.items():
        page.pixels(look.grid, alt=f"{name}: inputs, reconstructions and differences", caption=f"{name}: input, reconstruction, "
                    f"{DIFFERENCE_GAIN:g} times their difference; validation crops, mean of the posterior")
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
    _going_on(page, study)
    return page


def findings(study: Study) -> list[str]:
    """What this run shows, in words that follow from its numbers; the paper's results are not repeated here."""
    sentences = []
    if study.spectrum.images.physical is not None:
        sentences.append(_spectra(study.spectrum))
    sentences.append(_low_pass(study.spectrum))
    scores = {name: look.evaluation.scores for name, look in study.looks.items()}
    psnr = {name: found["psnr"] for name, found in scores.items() if "psnr" in found}
    if psnr:
        listed = ", ".join(f"{name} {score_cell(score.value, score.half_width)} dB" for name, score in psnr.items())
        sentences.append(f"Reconstruction, PSNR: {listed}.")
    return sentences


def _introduction(page: Page, study: Study) -> None:
    name, recipe = next(iter(study.recipes.items()))
    tables = recipe.tables
    page.text(
        f"Two small autoencoders ({study.looks[name].num_parameters / 1e6:.2f} million parameters, {tables.steps} steps of "
        f"{tables.data.batch} crops of {tables.data.image_size} px, one seed) were trained on photographs that ship inside "
        f"scikit-image: {' and '.join(study.recipes)}. They differ in one thing: DSM, Decoding Spectrum Matching, which asks the "
        "decoder to turn a low-passed latent into the equally low-passed image. Then the same small diffusion transformer was "
        "trained on the latents of each."
    )
    page.text(
        "This page says what this run shows. Networks this small, trained this briefly on crops of a dozen photographs, do not "
        "rank methods: intervals resample the photographs, and a second seed would move the numbers too. For the published "
        "comparison see arXiv 2603.14645 and recipes/paper."
    )


def _spectra(report: Report) -> str:
    parts, slope = [], report.images.physical.slope if report.images.physical else None
    for autoencoder in report.autoencoders:
        head = headline(autoencoder.physical)
        if isinstance(head.delta, Delta) and isinstance(head.target.divergence_db, Decibel):
            delta = interval(head.delta.value, head.delta.half_width)
            parts.append(f"{autoencoder.label} {delta} ({head.target.divergence_db.value:.1f} dB from the target)")
    image = interval(slope.exponent, slope.half_width) if isinstance(slope, Slope) else "not fitted"
    return (
        f"Power of the images falls with the slope {image}. delta is how much flatter the latents are: 0 copies the images, "
        f"{report.passport.delta:g} is the target. Here: {'; '.join(parts)}. {_verdict(report)}"
    )


def _verdict(report: Report) -> str:
    found = [headline(autoencoder.physical).delta for autoencoder in report.autoencoders]
    deltas = [(delta.value, delta.half_width) for delta in found if isinstance(delta, Delta) and delta.half_width is not None]
    if len(found) != 2 or len(deltas) != 2:
        return ""
    apart = abs(deltas[0][0] - deltas[1][0]) > deltas[0][1] + deltas[1][1]
    return f"The two intervals {'do not overlap' if apart else 'overlap'}."


def _low_pass(report: Report) -> str:
    parts = [f"{one.label} {shown_estimate(one.low_pass.gap_at(12), digits=1)} dB"
             for one in report.autoencoders if isinstance(one.low_pass, LowPass)]
    if not parts:
        return "The low-pass curve could not be measured."
    return (
        f"Low-pass gap at n = 12 (what PSNR loses when 12 of 15 anti-diagonals are taken from latent and image alike; at 0 the "
        f"decoder follows): {', '.join(parts)}."
    )


def _going_on(page: Page, study: Study) -> None:
    runs = " ".join(str(run) for run in study.runs.values())
    page.section("Going on")
    page.text("The same steps as single commands, and the next ones:")
    autoencoder, transformer = list(study.runs.values())[-1], list(study.generations.values())[-1].run
    page.commands(
        f"smtool spectrum {runs} --plot --published celeba/dsm",
        f"smtool eval {autoencoder} --psnr --ssim",
        f"smtool train-dit quickstart/sit --set latents.autoencoder={autoencoder} --set seed=1 --out {transformer}-seed1",
        f"smtool sample {transformer} --num-images 64 --sampler euler --steps 50 --seed 1",
        f"smtool eval {transformer} --features random",
        "smtool recipes list",
        "smtool train-ae recipes/dsm.toml",
        "smtool train-dit recipes/sit.toml",
        "smtool prepare PHOTOGRAPHS --size 64 --out data/mine",
        "smtool train-ae recipes/dsm.toml --data data/mine --out runs/mine",
        "smtool spectrum runs/mine --plot --data data/mine",
    )
