"""The tables, figures and HTML page of a report. The page opens offline: verdict first, then one chapter per section."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smtool.config import Config
from smtool.diffusability.report import SCOPE, Data, Report
from smtool.diffusability.sections import (
    autoregression,
    direction,
    drift,
    flattening,
    health,
    low_pass,
    noise_crossing_chapter,
    pictures,
    reference,
    transfer,
)
from smtool.diffusability.sections.parts import Chapter, Plot, Reason, headline
from smtool.diffusability.sections.pictures import Picture
from smtool.report.html import Card, Page, Statement
from smtool.report.plots import overview_figure
from smtool.report.tables import Table, interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pictures = Mapping[str, Mapping[str, Picture]]
RESULT = "spectrum"
"""The id of the HTML element that holds the whole report as JSON."""
_TOPICS_SHOWN = ("flattening", "frequency-aligned", "drift")


def tables(report: Report) -> list[Table]:
    """Tables for the console: each estimator, low-pass curve, f*, decoders and health, drift, verdict; what was measured only."""
    made = [_physical_table(report), _reference_table(report) if report.autoencoders else None]
    if report.autoencoders:
        lenses = {one.label: one.lens for one in report.autoencoders}
        emerging = autoregression.table(noise_crossing_chapter.autoregressions(lenses))
        made += [low_pass.table({one.label: one.low_pass for one in report.autoencoders}), emerging]
        made += [_decoders(report), drift.table(_drifts(report)), _verdicts(report)]
    return [table for table in made if table is not None]


def chapters(report: Report) -> list[Chapter]:
    """The chapters of all sections, in the order of the page."""
    note, autoencoders = report.passport.data.note, report.autoencoders
    transfers, low_passes = ({one.label: one.transfer for one in autoencoders}, {one.label: one.low_pass for one in autoencoders})
    made = []
    if report.images.physical is not None and (rows := _physical_table(report)):
        latents = {one.label: one.physical for one in autoencoders}
        made.append(flattening.chapter(report.images.physical, latents, rows, note=note))
    if report.images.reference is not None and (rows := _reference_table(report)):
        readings, sizes = {one.label: one.reference for one in autoencoders}, {one.label: one.latent_size for one in autoencoders}
        made.append(reference.chapter(report.images.reference, readings, sizes, report.published, rows, note=note))
    decoding = (
        "This takes two measurements, because some decoders pass one and fail the other: which image bands change when a latent "
        "band is perturbed a little, and whether the decoded image loses the same frequencies as the latent.",
        transfer.plot(transfers), transfer.table(transfers),
        low_pass.plot(low_passes, place=report.passport.data.place), low_pass.table(low_passes),
    )
    return [
        *made,
        Chapter("Does each latent frequency decode to its own image frequency?", decoding, pictures=("low-pass",)),
        noise_crossing_chapter.chapter({one.label: one.lens for one in autoencoders}),
        direction.chapter({one.label: one.direction for one in autoencoders}),
        pictures.CHAPTER,
        health.chapter({one.label: one.health for one in autoencoders}),
        drift.chapter(_drifts(report)),
    ]


def report_page(report: Report, pictures: Pictures, made: list[Chapter]) -> Page:
    """Build the page. pictures: by label of the autoencoder ("images": of the images) and kind; made: the report's `chapters`."""
    labels = [one.label for one in report.autoencoders]
    page = Page(f"Diffusability of {', '.join(labels)}" if labels else "Power spectra of images")
    _verdict(page, report)
    for chapter in made:
        _add(page, chapter, pictures)
    _passport(page, report)
    page.data(RESULT, report.to_json())
    return page


def add_plot(page: Page, plot: Plot) -> None:
    page.figure(plot.figure, alt=plot.alt, caption=plot.caption)


def overview(report: Report) -> "Figure":
    """One figure with the PHYSICAL power spectra and the low-pass curves."""
    assert report.images.physical is not None
    heads = {one.label: headline(one.physical) for one in report.autoencoders}
    curves, _ = low_pass.low_pass_curves({one.label: one.low_pass for one in report.autoencoders})
    return overview_figure(flattening.power_curves(report.images.physical, heads), curves)


def plots(made: list[Chapter]) -> list[Plot]:
    """All plots of the chapters. No figure mixes estimators."""
    return [block for chapter in made for block in chapter.blocks if isinstance(block, Plot)]


def _physical_table(report: Report) -> Table | None:
    if report.images.physical is None:
        return None
    return flattening.table(
        report.images.physical,
        {one.label: one.physical for one in report.autoencoders},
        normalized_by={one.label: one.normalization.source for one in report.autoencoders},
        delta=report.passport.delta,
        note=report.passport.data.note,
    )


def _reference_table(report: Report) -> Table | None:
    if report.images.reference is None:
        return None
    return reference.table({one.label: one.reference for one in report.autoencoders}, delta=report.passport.delta)


def _decoders(report: Report) -> Table:
    rows = tuple((one.label, *transfer.cells(one.transfer), *health.cells(one.health)) for one in report.autoencoders)
    columns = ("DECODER", "kappa", "above", "down", "rank", "grid", "shift", "cell", "latent")
    note = (
        "kappa: response of latent bands in the same image band (1: all of it, 0: chance); above: response above the latent's "
        "Nyquist frequency; down: response in lower image bands; rank: effective rank/channels; grid: phase contrast of "
        "reconstructions minus inputs; errors as fractions of the variance: shift, of reconstructions when the image shifts by "
        "part of a cell; cell, of decodings when latents shift by one cell; latent, of latents when the image shifts"
    )
    return Table("", columns, rows, note)


def _drifts(report: Report) -> dict[str, drift.Drift | Reason]:
    return {one.label: one.drift for one in report.autoencoders if one.drift is not None}


def _verdicts(report: Report) -> Table:
    """The findings on flattening and frequency alignment and all warnings; the page shows the whole verdict."""
    rows = [(f"{one.label}: {found.sentence}",) for one in report.autoencoders for found in one.verdict
            if found.tone == "warn" or found.topic in _TOPICS_SHOWN]
    return Table("", ("VERDICT",), tuple(rows), "This report diagnoses and does not rank; rank autoencoders with smtool race")


def _verdict(page: Page, report: Report) -> None:
    page.section("Verdict")
    page.text(f"Measured on {report.passport.data.note}.")
    if report.passport.cut:
        page.text(f"Cut to keep the time limit: {'; '.join(report.passport.cut)}. Intervals are wider; --full measures all.")
    if not report.autoencoders:
        if report.images.physical is not None and not isinstance(slope := report.images.physical.slope, Reason):
            shown = interval(slope.exponent, slope.half_width)
            page.text(f"The power spectrum of these images falls with a slope of {shown}; natural photographs have about 2.")
        return
    page.cards([
        Card(one.label, f"{one.architecture}\nlatents {'x'.join(map(str, (one.latent_channels, *one.latent_size)))}",
             [Statement(found.tone, found.sentence) for found in one.verdict])
        for one in report.autoencoders
    ])
    page.text(SCOPE)


def _add(page: Page, chapter: Chapter, pictures: Pictures) -> None:
    """Add a chapter; pictures of one kind are placed side by side. A chapter without plot, table and picture is skipped."""
    kinds: dict[str, list[tuple[str, Picture]]] = {}
    for label, named in pictures.items():
        for kind in (kind for kind in named if kind in chapter.pictures):
            kinds.setdefault(kind, []).append((label, named[kind]))
    if not kinds and not any(isinstance(block, Plot | Table) for block in chapter.blocks):
        return
    page.section(chapter.title)
    for block in chapter.blocks:
        if isinstance(block, Plot):
            add_plot(page, block)
        elif isinstance(block, Table):
            page.table(block)
        elif block is not None:
            page.text(block)
    for kind, found in kinds.items():
        page.pixels_beside([(one.image, f"{label}, {kind.replace('-', ' ')}. {one.caption}") for label, one in found])


def _passport(page: Page, report: Report) -> None:
    page.section("Passport and command")
    stated: dict[str, Any] = _named(report.passport.data) | _named(report.passport)
    for one in report.autoencoders:
        stated |= {f"{one.label}: source": one.path, f"{one.label}: sha256": one.digest,
                   f"{one.label}: downsampling": one.downsample}
    stated |= {"seconds": report.cost.seconds, "smtool": f"{report.smtool}, {report.schema_}"}
    page.summary({name: _said(value) for name, value in stated.items()})
    page.commands(_command(report))
    page.text(f'The HTML source of this page holds the whole report as JSON, in the element with the id "{RESULT}".')


def _named(part: Any) -> dict[str, Any]:
    return {name.replace("_", " "): value for name, value in part if value not in (None, ()) and not isinstance(value, Data)}


def _command(report: Report) -> str:
    """The command line that repeats the measurement, if the same files are at the same paths."""
    passport, labels = report.passport, [one.label for one in report.autoencoders]
    parts = ["smtool", "spectrum", *([one.path for one in report.autoencoders] or ["images"])]
    parts += ["--data", passport.data.source, "--num-images", str(passport.data.images), "--delta", f"{passport.delta:g}"]
    if passport.reference is not None and [passport.reference] != labels[:1]:
        parts += ["--reference", passport.reference]
    if passport.downsample_pad:
        parts += ["--downsample-pad", passport.downsample_pad]
    if passport.snr_threshold != 1:
        parts += ["--snr-threshold", f"{passport.snr_threshold:g}"]
    if passport.tile:
        parts += ["--tile", str(passport.tile)]
    if report.images.physical is None or report.images.reference is None:
        parts += ["--estimator", "reference" if report.images.physical is None else "physical"]
    parts += [word for published in report.published for word in ("--published", published.name)]
    return shlex.join([*parts, *(() if passport.cut else ("--full",)), "--plot"])


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_said(one)}" for name, one in value.items())
    if isinstance(value, Config):
        return _said(dict(value))
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
