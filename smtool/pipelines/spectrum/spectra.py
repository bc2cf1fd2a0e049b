"""`smtool spectrum`: how far the power spectra of latents are from a flattened copy of their images', and what else decides
whether a diffusion model will learn them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from smtool import __version__
from smtool.errors import RecipeError
from smtool.networks.layers import DownsamplePad
from smtool.pipelines.spectrum.files import write_files
from smtool.pipelines.spectrum.measure import measure
from smtool.pipelines.spectrum.parts import autoencoders_part, images_part
from smtool.pipelines.spectrum.passport import cost, passport
from smtool.pipelines.spectrum.pictures import pictures_of_images
from smtool.pipelines.spectrum.schema import SCHEMA
from smtool.pipelines.spectrum.sections import Clock, sections_of
from smtool.pipelines.spectrum.subjects import Subject, open_measured, open_subjects, referred
from smtool.pipelines.spectrum.tables import tables
from smtool.pipelines.threads import one_thread
from smtool.report.console import Console
from smtool.spectrum import PHYSICAL, REFERENCE, Estimator
from smtool.spectrum.published import published_curves
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
    budget: float | None = None,
    estimator: Literal["physical", "reference", "both"] = "both",
    delta: float | None = None,
    reference: str | None = None,
    out: Path | None = None,
    json_path: Path | None = None,
    published: Sequence[str] = (),
    downsample_pad: DownsamplePad | None = None,
    weights_dir: Path | None = None,
    device: str = "cpu",
    console: Console,
) -> dict[str, Any]:
    """Measure autoencoders (or "images" alone) on the same images, print tables, and write figures, page and spectrum.json.

    data: default builtin:photos, at the size the autoencoders were trained at. num_images: default 240; the sections that decode
    use the first 32 or 16 of them. budget: seconds for the whole report; the pass then ends once every delta is known to +-0.1,
    or when what the sections leave is spent. delta: of the target that latents are compared with; default the one a recipe's ESM
    aims at, else 1. reference: the autoencoder whose time schedule is to be matched; default the first. out: default beside the
    first checkpoint.
    """
    if json_path == Path("-"):      # standard output then belongs to the JSON
        console = Console(quiet=True)
    overlays = [_published(name) for name in published]
    estimators, data = _ESTIMATORS[estimator], data or BUILTIN
    names = [name for name in what if name != "images"]
    subjects, size = open_subjects(
        names, estimators, data=data, downsample_pad=downsample_pad, weights_dir=weights_dir, device=device
    )
    model = referred(reference, names, subjects)
    shards = open_measured(data, size, console)
    limit = min(len(shards), num_images or (NUM_IMAGES if budget is None else len(shards)))
    clock = Clock()
    with clock("spectra"):
        gathered = measure(shards, subjects, estimators, limit=limit, budget=budget, device=device, console=console)
    found = {subject.label: sections_of(subject, gathered, clock, console) for subject in subjects}
    aim = delta if delta is not None else _aim(subjects)
    with clock("fits"), one_thread():
        images = images_part(gathered, aim)
        autoencoders = autoencoders_part(gathered, found, aim, reference=model or "")
    result = {
        "schema": SCHEMA,
        "smtool": __version__,
        "passport": passport(
            gathered, data, estimators, delta=aim, reference=model, downsample_pad=downsample_pad, device=device
        ),
        "cost": cost(gathered, clock.seconds, device=device),
        "images": images,
        "autoencoders": autoencoders,
        "published": overlays,
    }
    for table in tables(result):
        console.print(table)
    files = write_files(
        result,
        {"images": pictures_of_images(gathered.first_images)} | {label: part.pictures for label, part in found.items()},
        folder=out or _beside(subjects),
        plot=plot,
        kept=plot or out is not None,
        json_path=json_path,
    )
    _name(files, console)
    return result


def _name(files: Sequence[Path], console: Console) -> None:
    """Say where the files are; figures are many."""
    drawn = [path for path in files if path.suffix in (".png", ".svg")]
    if drawn:
        console.print(f"{drawn[0].parent}: {len(drawn)} figures and pictures, PNG and SVG")
    for path in files:
        if path not in drawn:
            console.print(str(path))


def _aim(subjects: Sequence[Subject]) -> float:
    """The delta that the recipes' ESM tables agree on; 1, the paper's choice, where there is none."""
    tables = [subject.codec.recipe.get("regularizers", {}).get("esm") or {} for subject in subjects]
    aims = {float(esm["delta"]) for esm in tables if "delta" in esm}
    return aims.pop() if len(aims) == 1 else 1.0


def _published(name: str) -> dict[str, Any]:
    curves = published_curves()
    if name not in curves:
        raise RecipeError(f"--published {name}: no such curve.", hint=f"There are {', '.join(curves)}.")
    return {"name": name, "label": curves[name].label, "share": list(curves[name].values)}


def _beside(subjects: Sequence[Subject]) -> Path:
    """<stem>.spectrum beside one checkpoint; for several, one folder with their names beside the first. What is not a file has
    its folder here."""
    if not subjects:
        return Path("images.spectrum")
    first = Path(subjects[0].codec.source)
    first = Path(identify(first).place) if first.exists() or (Path("runs") / first).exists() else Path(subjects[0].label)
    names = "-".join(subject.label.replace("/", "-") for subject in subjects)
    return first.parent / f"{first.stem if len(subjects) == 1 else names[:100]}.spectrum"
