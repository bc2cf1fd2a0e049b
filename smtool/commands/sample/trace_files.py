"""Files and table of a trace: trace.json, trace.png and .svg, and traces.png and .svg of several runs side by side."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smtool.commands.sample.trace import Bands, Trace, Traced
from smtool.diffusability.sections.parts import Reason, Values, array
from smtool.errors import DataError
from smtool.features.pictures import as_rgb
from smtool.report.plots import Curve, figure_bytes
from smtool.report.plots.trace import Emerging, trace_figure, traces_figure
from smtool.report.tables import Table
from smtool.storage import write_bytes, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINAL = "end"


def write_trace(folder: Path, traced: Traced, beside: Sequence[Trace] = ()) -> list[Path]:
    """Write the trace into the folder of its samples, and a figure of it beside other traces if there are any; list the files."""
    files: dict[str, bytes] = {}
    figures = {"trace": _figure(traced)} | ({"traces": _figure_of([traced.trace, *beside])} if beside else {})
    for name, figure in figures.items():
        files |= {f"{name}.{kind}": figure_bytes(figure, kind) for kind in ("png", "svg")}
    for name, data in files.items():
        write_bytes(folder / name, data)
    write_json(folder / "trace.json", traced.trace.to_json())
    return [folder / name for name in ("trace.json", *files)]


def read_traces(paths: Sequence[Path]) -> list[Trace]:
    """Read trace.json files, or those in folders of samples. Raises DataError for a path without one, and for a damaged one."""
    found = []
    for path in paths:
        file = path / "trace.json" if path.is_dir() else path
        if not file.is_file():
            raise DataError(f"--beside {path}: no trace.json here.", hint="`smtool sample RUN --trace` writes one.")
        try:
            found.append(Trace.model_validate(json.loads(file.read_text(encoding="utf-8"))))
        except (ValueError, RecursionError) as error:
            first = str(error).splitlines()[0]
            raise DataError(f"--beside {file} is not a trace: {first}.", hint="Write it again with --trace.") from error
    return found


def check_beside(trace_size: tuple[int, int], beside: Sequence[Trace]) -> None:
    """Raise DataError if a trace is of images of another size: its cycles per side mean other details."""
    for one in beside:
        if tuple(one.image_size) != trace_size:
            (height, width), (tall, wide) = trace_size, one.image_size
            raise DataError(
                f"--beside: the trace of {one.label} is of {tall}x{wide} images, but these samples are {height}x{width}.",
                hint="Compare runs whose images have one size.",
            )


def table(trace: Trace) -> Table:
    """When each octave is settled, in decoded images and in latents, beside the noise level at which its SNR is 1."""
    columns = ("cycles per side", "images settle at", "latents settle at", "SNR = 1 at")
    note = (
        f"Noise levels sigma / (alpha + sigma), 1 for noise and 0 for data: from there on, {100 * trace.share:g} % of a band's "
        f"final power is explained by the denoised estimate ({FINAL}: only by the final image). SNR = 1: from the final latents' "
        f"own spectrum, the f*(t) of `smtool spectrum`. {trace.images} images"
    )
    bands = [bands for bands in (trace.pixels, trace.latents) if not isinstance(bands, Reason)]
    rows = []
    for octave in _octaves(max((bands.cycles_per_side[-1] or 0.0 for bands in bands), default=0.0)):
        pixels, latents = (_at(bands, octave) for bands in (trace.pixels, trace.latents))
        crossing = "-" if isinstance(trace.latents, Reason) or latents is None else _shown(trace.latents.crossing[latents])
        settled = [
            "-" if isinstance(bands, Reason) or index is None else _shown(bands.settled[index])
            for bands, index in ((trace.pixels, pixels), (trace.latents, latents))
        ]
        rows.append((f"{octave:g}", *settled, crossing))
    return Table("", columns, tuple(rows), note)


def _octaves(highest: float) -> list[int]:
    return [2**power for power in range(20) if 2**power <= 1.1 * highest]


def _at(bands: Bands | Reason, octave: float) -> int | None:
    """Index of the ring nearest to a frequency, None if there is none within a quarter of an octave."""
    if isinstance(bands, Reason):
        return None
    distance = np.abs(np.log2(array(bands.cycles_per_side) / octave))
    return int(distance.argmin()) if distance.min() <= 0.25 else None


def _shown(value: float | None) -> str:
    return FINAL if value is None else f"{value:.2f}"


def _figure(traced: Traced) -> "Figure":
    """Figure of one trace: denoised images, their power spectra, and the explained share of each band."""
    trace = traced.trace
    pixels = trace.latents if isinstance(trace.pixels, Reason) else trace.pixels
    if isinstance(pixels, Reason):
        raise DataError(f"{trace.label}: nothing to trace, {pixels.reason}.", hint="Trace a model of larger images.")
    latents = None if isinstance(trace.latents, Reason) else trace.latents
    emerging = Emerging(
        noise=array(trace.noise), cycles=array(pixels.cycles_per_side), power=np.stack([array(row) for row in pixels.power]),
        final=array(pixels.final_power), explained=np.stack([array(row) for row in pixels.explained]),
        settled=_or_zero(pixels.settled), latent_cycles=array(latents.cycles_per_side if latents else []),
        latent_settled=_or_zero(latents.settled if latents else []), crossing=array(latents.crossing if latents else []),
    )
    count, columns = traced.pictures.shape[:2]
    pictures = as_rgb(traced.pictures.flatten(0, 1)).unflatten(0, (count, columns))
    return trace_figure(emerging, pictures, traced.shown, title=_name(trace), share=trace.share)


def _figure_of(traces: Sequence[Trace]) -> "Figure":
    """Figure of several traces: when each frequency is settled, in decoded images and in latents."""
    pixels, latents = [], []
    for colour, trace in enumerate(traces):
        if not isinstance(trace.pixels, Reason):
            pixels.append(_curve(trace.pixels, trace.pixels.settled, _name(trace), colour))
        if not isinstance(trace.latents, Reason):
            latents.append(_curve(trace.latents, trace.latents.settled, "", colour))
            latents.append(replace(_curve(trace.latents, trace.latents.crossing, "", colour), role="control"))
    return traces_figure(pixels, latents, share=traces[0].share)


def _curve(bands: Bands, values: Values, label: str, colour: int) -> Curve:
    return Curve(label, array(bands.cycles_per_side).tolist(), _or_zero(values), colour=colour)


def _or_zero(values: Values) -> np.ndarray:
    """The values, with 0, the noise level of the final sample, for what is settled only there."""
    return np.nan_to_num(array(values), nan=0.0)


def _name(trace: Trace) -> str:
    sampler = trace.sampling.sampler
    return trace.label if sampler is None else f"{trace.label}: {trace.process}, {sampler.kind}, {sampler.steps} steps"
