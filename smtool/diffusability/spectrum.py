"""`smtool spectrum`: measures how far the power spectra of latents are from a flattened copy of their images' spectrum, and other
properties that decide whether a diffusion model learns them."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from smtool import __version__
from smtool.devices import one_thread, peak_memory_mb
from smtool.diffusability.gathering import Gathered, gather
from smtool.diffusability.inputs.accumulators import LatentRings
from smtool.diffusability.inputs.pairs import LatentPairs, any_alike
from smtool.diffusability.inputs.subjects import Subject, label_of_reference, open_measured, open_subjects
from smtool.diffusability.page import chapters, plots, report_page, tables
from smtool.diffusability.plan import Limit, plan_report
from smtool.diffusability.report import (
    SCHEMA,
    Autoencoder,
    Codings,
    Cost,
    Data,
    Images,
    Measured,
    Normalization,
    Origin,
    Passes,
    Passport,
    Report,
    verdict,
)
from smtool.diffusability.sections import (
    direction,
    drift,
    health,
    low_pass,
    noise_crossing,
    physical,
    pictures,
    reference,
    transfer,
)
from smtool.diffusability.sections.parts import NOT_MEASURED, Reason, headline
from smtool.errors import RecipeError
from smtool.inference.tile_advice import advising_tiles
from smtool.networks.layers import DownsamplePad
from smtool.report.console import Console
from smtool.report.grids import png_bytes
from smtool.report.plots import figure_bytes
from smtool.spectrum import PHYSICAL, REFERENCE, Estimator
from smtool.spectrum.published import published_curves
from smtool.storage import write_bytes, write_json
from smtool.tokenizers import identify

BUILTIN = "builtin:photos"
NUM_IMAGES = 240
_ESTIMATORS: dict[str, tuple[Estimator, ...]] = {
    "physical": (PHYSICAL,),
    "reference": (REFERENCE.loss, REFERENCE.curve),
    "both": (PHYSICAL, REFERENCE.loss, REFERENCE.curve),
}


def spectrum(
    what: list[str],
    *,
    plot: bool = False,
    data: str | None = None,
    num_images: int | None = None,
    limit: Limit | None = None,
    estimator: Literal["physical", "reference", "both"] = "both",
    delta: float | None = None,
    reference: str | None = None,
    snr_threshold: float = 1.0,
    out: Path | None = None,
    json_path: Path | None = None,
    published: Sequence[str] = (),
    downsample_pad: DownsamplePad | None = None,
    weights_dir: Path | None = None,
    device: str = "cpu",
    tile: int | None = None,
    console: Console,
) -> Report:
    """Measure autoencoders (or "images" alone) on the same images, print tables, and write figures, page and spectrum.json.

    data: default builtin:photos, at the size the autoencoders were trained at. num_images: default 240; the decoding sections use
    the first 32 or 16 of them. limit: time for the whole report, into which the protocol is cut (`Protocol.fitted`); None for the
    full protocol. With `ends_early`, num_images defaults to all, and the pass ends once every delta is known to +-0.1. delta: of
    the target that latents are compared with; default: the delta of the recipes' ESM, else 1. reference: the autoencoder whose
    time schedule is to be matched; default the first. snr_threshold: SNR above which a frequency counts as visible in noise. out:
    folder of the written files; default: beside the first checkpoint. tile: side in pixels of overlapping tiles that are encoded
    and decoded one at a time; None: whole images.
    """
    if json_path == Path("-"):      # standard output holds only the JSON
        console = Console(quiet=True)
    began = time.monotonic()
    if not (snr_threshold > 0 and math.isfinite(snr_threshold)):
        raise RecipeError(f"--snr-threshold {snr_threshold:g}: must be a positive number.")
    overlays = [_published(name) for name in published]
    estimators, data = _ESTIMATORS[estimator], data or BUILTIN
    names = [name for name in what if name != "images"]
    subjects, size = open_subjects(
        names, data=data, downsample_pad=downsample_pad, weights_dir=weights_dir, device=device, tile=tile
    )
    model = label_of_reference(reference, names, subjects)
    shards = open_measured(data, size, console, channels=subjects[0].codec.image_channels if subjects else None)
    wanted = min(len(shards), num_images or (len(shards) if limit is not None and limit.ends_early else NUM_IMAGES))
    clock = Clock()
    compared = any_alike(subjects, model, size)
    plan = plan_report(
        subjects, shards.read([0]).images.to(device), images=wanted, limit=limit, began=began, drift=compared
    )
    for sentence in plan.sentences():
        console.print(sentence)
    with clock("spectra"):
        gathered = gather(shards, subjects, estimators, plan, device=device, console=console, reference=model)
    decoded = {}
    for latents in gathered.latents:
        with advising_tiles(latents.subject.codec, gathered.protocol.size, batch=None):
            decoded[latents.subject.label] = decode_sections(latents, gathered, clock, console)
    drifts = _drifts(gathered, clock, console)
    aim = delta if delta is not None else _aim(subjects)
    with clock("fits"), one_thread():
        images = _images(gathered, aim)
        autoencoders = _autoencoders(gathered, decoded, drifts, aim, shifted_to=model or "", snr_threshold=snr_threshold)
    report = Report(
        schema=SCHEMA,
        smtool=__version__,
        passport=Passport(
            data=_data(gathered, data), delta=aim, reference=model, downsample_pad=downsample_pad, snr_threshold=snr_threshold,
            estimators=[one.label for one in estimators],
            posterior={latents.subject.label: list(latents.kinds) for latents in gathered.latents},
            interval=f"95%, jackknife over {gathered.units.name}s, Student's t", stopped=gathered.stopped,
            images=_images_of_sections(gathered), device=device, torch=torch.__version__,
            tile=tile, time_limit=None if limit is None else limit.seconds, full_seconds=plan.full_seconds,
            cut=tuple(gathered.cuts),
        ),
        cost=_cost(subjects, clock.seconds, device),
        images=images,
        autoencoders=autoencoders,
        published=overlays,
    )
    for table in tables(report):
        console.print(table)
    pixels: dict[str, Mapping[str, pictures.Picture]] = {"images": pictures.visualize_images(gathered.first_images)}
    pixels |= {label: part.pictures for label, part in decoded.items()}
    folder = out or _beside(subjects)
    files = _draw(report, pixels, folder) if plot else []
    if files:
        console.print(f"{folder}: {len(files)} figures and pictures, PNG and SVG")
        console.print(str(folder / "report.html"))
    for path in _write_json(report, [folder / "spectrum.json"] if plot or out else [], json_path):
        console.print(str(path))
    return report


@dataclass
class Clock:
    """Seconds by section, in the order in which the sections first ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[section] = self.seconds.get(section, 0.0) + time.monotonic() - start


@dataclass(frozen=True)
class Decoded:
    """The sections of one autoencoder that need whole images or latents; pictures by kind."""

    transfer: transfer.Transfer | Reason
    low_pass: low_pass.LowPass | Reason
    direction: direction.Direction
    health: health.Health
    pictures: Mapping[str, pictures.Picture]


def decode_sections(latents: LatentRings, gathered: Gathered, clock: Clock, console: Console) -> Decoded:
    """Measure the sections that need whole images, as `gathered.protocol` says, and report progress."""
    subject, total = latents.subject, gathered.protocol.decodes
    if not subject.codec.can_decode or not total:
        return _decoded(latents, gathered, clock)
    with console.progress(f"decoding with {subject.label}") as report, subject.reporting(lambda done: report(done, total)):
        return _decoded(latents, gathered, clock)


@torch.no_grad()
def _decoded(latents: LatentRings, gathered: Gathered, clock: Clock) -> Decoded:
    """Measure the sections. Unchanged latents are decoded once, for all sections."""
    subject, protocol = latents.subject, gathered.protocol
    images, first, stats = gathered.first_images, latents.first_latents, latents.stats(gathered.shards.digest)
    few, units = images[:protocol.decoded], gathered.units.first(len(images))
    curve = low_pass.LowPassed(NOT_MEASURED)
    moved: transfer.Transfer | Reason = NOT_MEASURED
    with clock("reconstruction"):
        whole = subject.reconstruct(first[:len(few)]) if len(few) else None
    if protocol.removals:
        with clock("low_pass"):
            curve = low_pass.measure(subject, few, first[:len(few)], whole, units.first(len(few)), removals=protocol.removals)
    if protocol.bands:
        with clock("transfer"):
            number = protocol.transfer_images
            moved = transfer.measure(
                subject, first[:number], None if whole is None else whole[:number], bands=protocol.bands
            )
    with clock("direction"):
        directed = direction.measure(first, stats, units)
    with clock("health"):
        checks = health.measure(subject, few, latents.posteriors, whole, with_shifts=protocol.shifts)
    with clock("pictures"):
        drawn = pictures.visualize(images, first, stats, whole, low_passed=curve.shown)
    return Decoded(moved, curve.section, directed, checks, drawn)


def _drifts(gathered: Gathered, clock: Clock, console: Console) -> dict[str, drift.Drift | Reason]:
    """Drift of every autoencoder but the reference, by label; {} with a single one."""
    stats = {latents.subject.label: latents.stats("") for latents in gathered.latents}

    def measured(label: str, pairs: LatentPairs) -> drift.Drift | Reason:
        number, source = gathered.protocol.drift_images, pairs.reference.label
        total = drift.DECODINGS * min(number, len(pairs.kept_places))
        shown = console.progress(f"decoding latents of {source} with {label}")
        with clock("drift"), shown as report, pairs.other.reporting(lambda done: report(done, total)):
            return drift.measure(pairs, gathered.first_images, stats[source], decoded=number)

    return {label: one if isinstance(one, Reason) else measured(label, one) for label, one in gathered.pairs.items()}


def _images(gathered: Gathered, delta: float) -> Images:
    """Spectra of the images, without the keys of estimators that were not requested."""
    rings, units = gathered.images, gathered.units
    found: dict[str, Any] = {}
    if rings.measures(PHYSICAL):
        found |= {"physical": physical.measure_images(rings, units)}
    if rings.measures(REFERENCE.curve):
        found |= {"reference": [reference.measure_images(rings, size, units, delta=delta) for size in rings.sizes]}
    return Images(**found)


def _autoencoders(
    gathered: Gathered,
    decoded: Mapping[str, Decoded],
    drifts: Mapping[str, drift.Drift | Reason],
    delta: float,
    *,
    shifted_to: str,
    snr_threshold: float,
) -> list[Autoencoder]:
    """Measurements and verdict of every autoencoder.

    drifts: by label, of all but the reference. shifted_to: label of the autoencoder that time shifts match.
    """
    rings, labelled = gathered.images, {latents.subject.label: latents for latents in gathered.latents}
    has_physical, has_reference = rings.measures(PHYSICAL), rings.measures(REFERENCE.curve)
    physicals, references = {}, {}
    for label, latents in labelled.items():
        common = (rings, latents, latents.stats("").std, gathered.size(latents), gathered.units)
        physicals[label] = physical.measure(*common, delta=delta) if has_physical else []
        references[label] = reference.measure(*common, delta=delta) if has_reference else []
    heads = {label: headline(readings) if readings else None for label, readings in physicals.items()}
    crossings = noise_crossing.measure_all(heads, shifted_to, threshold=snr_threshold)
    found = []
    for label, latents in labelled.items():
        codec, stats, sections = latents.subject.codec, latents.stats(gathered.shards.digest), decoded[label]
        source = "its LatentStats" if codec.stats else "the std of each channel over these images (it has no LatentStats)"
        one = Measured(
            label=label, path=codec.source, digest=codec.digest, architecture=codec.architecture,
            deterministic=codec.deterministic, can_decode=codec.can_decode, downsample=codec.downsample,
            latent_channels=codec.latent_channels, latent_size=gathered.size(latents),
            normalization=Normalization.of(source, stats),
            physical=physicals[label], reference=references[label], transfer=sections.transfer, low_pass=sections.low_pass,
            lens=crossings[label], direction=sections.direction, health=sections.health,
            **({"drift": drifts[label]} if label in drifts else {}),
        )
        parts = {name: part for name, part in one if name in one.model_fields_set}
        found.append(Autoencoder(**parts, verdict=verdict(one)))
    return found


def _data(gathered: Gathered, source: str) -> Data:
    shards, units, card = gathered.shards, gathered.units, gathered.shards.card
    return Data(
        source=source, split="validation" if shards.split == "val" else "training", digest=shards.digest,
        images=len(units.groups), image_size=gathered.protocol.size, unit=units.name, units=len(units),
        origin=Origin(name=card.source.name, kind=card.source.kind), crop=card.crop, crop_rule=card.crop_rule,
        stored_as=card.image_format,
        compression_before="not recorded: dataset.json states how images are stored, not how the source was compressed",
        upscaled=card.upscaled,
    )


def _images_of_sections(gathered: Gathered) -> dict[str, int]:
    """Number of images by section; each section uses the first images of the pass, in stored order."""
    protocol, kept = gathered.protocol, sum(map(len, gathered.kept))
    used = {"low_pass": protocol.low_pass_images, "transfer": protocol.transfer_images, "shift": protocol.shift_images}
    used |= {"drift": protocol.drift_images} if protocol.drift else {}
    few = {name: min(number, kept) for name, number in used.items()}
    return {"spectra": len(gathered.units.groups), **few, "direction": kept}


def _cost(subjects: Sequence[Subject], seconds: Mapping[str, float], device: str) -> Cost:
    passes = {
        subject.label: Codings(
            encode=Passes(images=subject.encoded.images, seconds=subject.encoded.seconds),
            decode=Passes(images=subject.decoded.images, seconds=subject.decoded.seconds),
        )
        for subject in subjects
    }
    spent = sum(one.encode.seconds + one.decode.seconds for one in passes.values())
    return Cost(
        seconds=dict(seconds), passes=passes, pass_seconds=spent, report_seconds=sum(seconds.values()),
        peak_memory_mb=peak_memory_mb(device),
    )


def _aim(subjects: Sequence[Subject]) -> float:
    """The delta of the recipes' ESM tables and of recolourings, if they agree; else 1, the paper's choice."""
    tables = [subject.codec.recipe.get("regularizers", {}).get("esm") or {} for subject in subjects]
    filters = [subject.codec.stats.recolouring for subject in subjects if subject.codec.stats is not None]
    aims = {float(esm["delta"]) for esm in tables if "delta" in esm}
    aims |= {float(one.flatten) for one in filters if one is not None and one.flatten != "white"}
    return aims.pop() if len(aims) == 1 else 1.0


def _published(name: str) -> reference.Published:
    curves = published_curves()
    if name not in curves:
        raise RecipeError(f"--published {name}: no such curve.", hint=f"There are {', '.join(curves)}.")
    return reference.Published(name=name, label=curves[name].label, share=list(curves[name].values))


def _beside(subjects: Sequence[Subject]) -> Path:
    """Default output folder: <stem>.spectrum beside a single checkpoint; for several, a folder named after all of them beside the
    first. An autoencoder that is not a file gets its folder in the working directory."""
    if not subjects:
        return Path("images.spectrum")
    first = Path(subjects[0].codec.source)
    first = Path(identify(first).place) if first.exists() or (Path("runs") / first).exists() else Path(subjects[0].label)
    names = "-".join(subject.label.replace("/", "-") for subject in subjects)
    return first.parent / f"{first.stem if len(subjects) == 1 else names[:100]}.spectrum"


def _draw(report: Report, pixels: Mapping[str, Mapping[str, pictures.Picture]], folder: Path) -> list[Path]:
    """Write the page, and each figure and picture as its own file; return the paths of the figures and pictures."""
    made = chapters(report)
    files = {f"{one.name}.{kind}": figure_bytes(one.figure, kind) for one in plots(made) for kind in ("png", "svg")}
    for label, named in pixels.items():
        for name, picture in named.items():
            files[f"{label.replace('/', '-')}.{name}.png"] = png_bytes(picture.image)
    for name, data in files.items():
        write_bytes(folder / name, data)
    report_page(report, pixels, made).write(folder / "report.html")
    return [folder / name for name in files]


def _write_json(report: Report, paths: list[Path], json_path: Path | None) -> list[Path]:
    """Write the report to all paths, and return them. json_path: one more file, or "-" for standard output."""
    value = report.to_json()
    if json_path == Path("-"):
        print(json.dumps(value, allow_nan=False))
    elif json_path:
        paths = [*paths, json_path]
    for path in paths:
        write_json(path, value)
    return paths
