"""The report as one page that opens offline: verdict first, then every measurement with what to look for in it."""

import shlex
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from smtool.pipelines.spectrum.captions import add_figure
from smtool.pipelines.spectrum.page_tables import direction_table, health_table, lens_table, transfer_table
from smtool.pipelines.spectrum.pictures import Picture
from smtool.pipelines.spectrum.tables import data_note, tables
from smtool.pipelines.spectrum.verdict import SCOPE
from smtool.report.html import Card, Page, Statement
from smtool.report.tables import Table, interval

Result = Mapping[str, Any]
Pictures = Mapping[str, Mapping[str, Picture]]
RESULT = "spectrum"
"""The id of the element that holds the whole result as JSON."""
_WHERE = {"low-pass": "decoding", "token-similarity": "direction"}


def report_page(result: Result, pictures: Pictures, drawn: Mapping[str, Figure]) -> Page:
    """result: what `spectrum` returns. pictures: by autoencoder's label ("images" for those of no autoencoder) and name.

    drawn: its `figures`.
    """
    labels = [autoencoder["label"] for autoencoder in result["autoencoders"]]
    page = Page(f"Is it diffusable? {', '.join(labels)}" if labels else "Power spectra of images")
    _verdict(page, result)
    _power(page, result, drawn)
    _reference(page, result, drawn)
    _decoding(page, result, drawn, pictures)
    _noise(page, result, drawn)
    _direction(page, result, drawn, pictures)
    _pictures(page, pictures)
    _health(page, result, drawn)
    _passport(page, result)
    page.data(RESULT, result)
    return page


def _verdict(page: Page, result: Result) -> None:
    page.section("Verdict")
    page.text(f"Measured on {data_note(result)}.")
    if not result["autoencoders"]:
        slope = result["images"].get("physical", {}).get("slope", {})
        if "exponent" in slope:
            shown = interval(slope["exponent"], slope["half_width"])
            page.text(f"Their power falls with a slope of {shown}; photographs have about 2.")
        return
    page.cards([
        Card(one["label"], f"{one['architecture']}\nlatents {'x'.join(map(str, (one['latent_channels'], *one['latent_size'])))}",
             [Statement(found["tone"], found["sentence"]) for found in one["verdict"]])
        for one in result["autoencoders"]
    ])
    page.text(SCOPE)


def _power(page: Page, result: Result, drawn: Mapping[str, Figure]) -> None:
    if "physical" not in drawn:
        return
    page.section("Is it flattened like it should be?" if result["autoencoders"] else "Power spectrum")
    add_figure(page, "physical" if result["autoencoders"] else "images", drawn["physical"])
    if result["autoencoders"]:
        page.table(_by_name(result, "PHYSICAL"))
    _add_figures(page, drawn, "readings", "channels")


def _reference(page: Page, result: Result, drawn: Mapping[str, Figure]) -> None:
    if "reference" not in drawn:
        return
    page.section("The same in the paper's recipe (REFERENCE)")
    if result["autoencoders"]:
        add_figure(page, "reference", drawn["reference"])
        page.table(_by_name(result, "REFERENCE"))
    else:
        add_figure(page, "reference of images", drawn["reference"])


def _decoding(page: Page, result: Result, drawn: Mapping[str, Figure], pictures: Pictures) -> None:
    strips = _chosen(pictures, "low-pass")
    if not strips and not {"transfer", "low-pass"} & drawn.keys():
        return
    page.section("Does each latent frequency decode to its own image frequency?")
    page.text("Two numbers answer this, and either alone can be fooled: where the image answers when a latent band is stirred a "
              "little, and whether the decoder follows when frequencies are removed.")
    _add_figures(page, drawn, "transfer")
    _add_table(page, transfer_table(result))
    if "low-pass" in drawn:
        add_figure(page, "low-pass", drawn["low-pass"])
        page.table(_by_name(result, "LOW-PASS"))
    _add_pictures(page, strips)


def _noise(page: Page, result: Result, drawn: Mapping[str, Figure]) -> None:
    if "lens" not in drawn:
        return
    page.section("What diffusion noise leaves of it")
    page.text("Closed forms for this spectrum, if latents were Gaussian and their frequencies independent (Proposition 3.1).")
    _add_figures(page, drawn, "lens", "crossing")
    _add_table(page, lens_table(result))


def _direction(page: Page, result: Result, drawn: Mapping[str, Figure], pictures: Pictures) -> None:
    maps = _chosen(pictures, "token-similarity")
    if not maps and "direction" not in drawn:
        return
    page.section("Direction: how tokens vary in space")
    _add_figures(page, drawn, "direction")
    _add_table(page, direction_table(result))
    _add_pictures(page, maps)


def _pictures(page: Page, pictures: Pictures) -> None:
    rest = [(label, name, one) for label, named in pictures.items() for name, one in named.items() if name not in _WHERE]
    if not rest:
        return
    page.section("Pictures")
    _add_pictures(page, rest)


def _health(page: Page, result: Result, drawn: Mapping[str, Figure]) -> None:
    table = health_table(result)
    if table is None:
        return
    page.section("Health")
    page.table(table)
    _add_figures(page, drawn, "capacity")


def _passport(page: Page, result: Result) -> None:
    passport, data = result["passport"], result["passport"]["data"]
    page.section("Passport, and how to repeat it")
    stated = {name: value for name, value in {**data, **passport}.items() if name != "data" and value is not None}
    facts = {name.replace("_", " "): _said(value) for name, value in stated.items()}
    for one in result["autoencoders"]:
        facts |= {f"{one['label']}: {name}": _said(one[key]) for name, key in _OF_AUTOENCODERS.items()}
    facts |= {"seconds": _said(result["cost"]["seconds"]), "smtool": f"{result['smtool']}, {result['schema']}"}
    page.facts(facts)
    page.commands(_command(result))
    page.text(f'All numbers of this page, and more, are in it as JSON: the element with the id "{RESULT}" of its source.')


_OF_AUTOENCODERS = {"source": "path", "sha256": "digest", "downsampling": "downsample"}


def _command(result: Result) -> str:
    """It repeats the measurement where the same files lie at the same places."""
    passport = result["passport"]
    parts = ["smtool", "spectrum", *([one["path"] for one in result["autoencoders"]] or ["images"])]
    parts += ["--data", passport["data"]["source"], "--num-images", str(passport["data"]["images"])]
    parts += ["--delta", f"{passport['delta']:g}"]
    if result["autoencoders"] and passport["reference"] != result["autoencoders"][0]["label"]:
        parts += ["--reference", passport["reference"]]
    if passport.get("downsample_pad"):
        parts += ["--downsample-pad", passport["downsample_pad"]]
    if len(result["images"]) == 1:
        parts += ["--estimator", *result["images"]]
    parts += [word for published in result["published"] for word in ("--published", published["name"])]
    return shlex.join([*parts, "--plot"])


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_said(one)}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _by_name(result: Result, name: str) -> Table:
    """One of the console's tables, which carry their names at the top of their first column."""
    return next(table for table in tables(result) if table.columns[0] == name)


def _chosen(pictures: Pictures, name: str) -> list[tuple[str, str, Picture]]:
    return [(label, name, named[name]) for label, named in pictures.items() if name in named]


def _add_figures(page: Page, drawn: Mapping[str, Figure], *names: str) -> None:
    for name in names:
        if name in drawn:
            add_figure(page, name, drawn[name])


def _add_table(page: Page, table: Table | None) -> None:
    if table is not None:
        page.table(table)


def _add_pictures(page: Page, pictures: list[tuple[str, str, Picture]]) -> None:
    """Pictures of one kind side by side."""
    for kind in dict.fromkeys(name for _, name, _ in pictures):
        title = kind.replace("-", " ")
        page.pixels_beside([(one.image, f"{label}, {title}. {one.caption}") for label, name, one in pictures if name == kind])
