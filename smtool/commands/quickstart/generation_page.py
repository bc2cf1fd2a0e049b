"""The second half of the page of `smtool quickstart`: what transformers made of the latents."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from smtool.commands.quickstart.generation import CROPS, RECONSTRUCTIONS, SAMPLES, Generation
from smtool.commands.quickstart.scores import sample_table, score_cell
from smtool.evaluation.scores import Score
from smtool.report.html import Page
from smtool.report.plots import Curve, Role, learning_figure, samples_figure
from smtool.report.tables import Table
from smtool.tasks.diffusion import NUM_BANDS

LAST_STEPS = 250
BANDS = [f"band{number}" for number in range(1, NUM_BANDS + 1)]

Generations = Mapping[str, Generation]
_LOOKS: Mapping[str, Role] = {SAMPLES: "latent", RECONSTRUCTIONS: "control"}


def generation_sections(page: Page, generations: Generations) -> None:
    """Samples, distances and losses; the claims follow from this run's numbers."""
    first = next(iter(generations.values()))
    page.section("Diffusion on the latents")
    page.text(_introduction(generations))
    page.pixels(first.reals, alt="crops of the training photographs", caption="training crops, for comparison")
    for name, one in generations.items():
        page.pixels(one.samples, alt=f"samples on the latents of {name}", caption=f"{name}: samples, the first "
                    "ones drawn, none chosen; the same noise for each autoencoder")
    page.text(_distances(generations))
    page.table(sample_table(generations))
    page.figure(
        samples_figure(*_spectra(generations)),
        alt="Left: power spectra of training crops, reconstructions and samples. Right: their ratios to the training crops.",
        caption="Power of samples (solid) and of reconstructions of training crops (dashed), "
        f"{len(first.spectra[SAMPLES].power)} of each, PHYSICAL estimator. Where dashed leaves 0 dB, the autoencoder loses or "
        "adds power; where solid leaves dashed, the transformer does.",
    )
    page.section("Which frequencies the transformers have learnt")
    page.figure(
        learning_figure(_losses(generations)),
        alt="Training loss against steps, for all frequencies and for four bands, with the floor of each band.",
        caption="Squared error of the predicted velocity, over all latent frequencies and over four bands from low to high. "
        "Dashed: the floor of a perfect network, if latents were Gaussian and their frequencies independent. A line that still "
        "falls is still being learnt. Losses of different latents do not compare: their floors differ.",
    )
    page.table(band_table(generations))


def band_table(generations: Generations) -> Table:
    """For each band and autoencoder: where the loss started, where it is, its floor, and how much of the way that is."""
    rows = []
    for index in range(NUM_BANDS):
        row = [_band_title(index, next(iter(generations.values())))]
        for one in generations.values():
            loss, floors = recent(one, BANDS), one.floors
            row.append(f"{floors.start[index]:.2f} → {loss[index]:.2f} ({floors.floor[index]:.2f})")
            row.append(f"{100 * floors.learnt(loss)[index]:.0f} %")
        rows.append(tuple(row))
    columns = [column for name in generations for column in (f"{name}: loss (floor)", "learnt")]
    return Table(
        "Learnt, by band of latent frequency",
        ("band", *columns),
        tuple(rows),
        f"Loss at the start (a transformer begins with the output 0) → mean of the last {LAST_STEPS} steps; learnt: the share "
        "of the way from the start to the floor. More than 100 % means that the transformer uses what one frequency tells of "
        "another, which the floor leaves out. Training loss, on latents that were seen before.",
    )


def recent(one: Generation, names: Sequence[str]) -> Tensor:
    """Mean of each loss over the last steps; the rows have equal numbers of steps."""
    rows = [row for row in one.rows if "diffusion" in row]
    late = [row for row in rows if row["step"] > rows[-1]["step"] - LAST_STEPS]
    return torch.tensor([[row[name] for name in names] for row in late], dtype=torch.float64).mean(0)


def _introduction(generations: Generations) -> str:
    one = next(iter(generations.values()))
    tables = one.model.tables
    size = sum(parameter.numel() for parameter in one.model.network.parameters())
    return (
        f"On the latents of each specimen the same small SiT ({size / 1e6:.1f} million parameters, {tables.steps:,} steps of "
        f"{tables.data.batch}, flow matching, one seed) was trained to turn noise into latents, which the autoencoder decodes. "
        "A minute of training on crops of a dozen photographs gives textures: it shows how the comparison is made and does not "
        "rank the two."
    )


def _distances(generations: Generations) -> str:
    found = {name: next(iter(one.evaluation.scores.values())) for name, one in generations.items()}
    score = next(iter(found.values()))
    reconstructions = {name: one.distances[RECONSTRUCTIONS][score.name] for name, one in generations.items()}
    listed = ", ".join(
        f"{name} {score_cell(entry.value, entry.half_width)} (reconstructions {reconstructions[name]:.3f})"
        for name, entry in found.items()
    )
    crops = next(iter(generations.values())).distances[CROPS][score.name]
    return (
        f"{score.title} of the samples: {listed}; as many real crops score {crops:.3f}. Samples pass through the decoder too, "
        f"so compare them with what its reconstructions score.{_overlap(list(found.values()))}"
    )


def _overlap(scores: Sequence[Score]) -> str:
    found = [(score.value, score.half_width) for score in scores if score.value is not None and score.half_width is not None]
    if len(scores) != 2 or len(found) != 2:
        return ""
    apart = abs(found[0][0] - found[1][0]) > found[0][1] + found[1][1]
    return f" The intervals of the samples {'do not overlap' if apart else 'overlap'}."


def _losses(generations: Generations) -> dict[str, list[Curve]]:
    panels: dict[str, list[Curve]] = {"all frequencies": []}
    for colour, (name, one) in enumerate(generations.items()):
        rows = [row for row in one.rows if "diffusion" in row]
        steps = [row["step"] for row in rows]
        panels["all frequencies"].append(Curve(name, steps, [row["diffusion"] for row in rows], colour=colour))
        for index, band in enumerate(BANDS):
            floor = float(one.floors.floor[index])
            panels.setdefault(_band_title(index, one), []).extend([
                Curve(name, steps, [row[band] for row in rows], colour=colour),
                Curve(f"{name}, Gaussian floor", [0, steps[-1]], [floor, floor], role="control", colour=colour),
            ])
    return panels


def _spectra(generations: Generations) -> tuple[list[Curve], list[Curve]]:
    first = next(iter(generations.values()))
    crops = first.spectra[CROPS].mean()
    side = first.spectra[CROPS].size[0]
    frequency = (first.spectra[CROPS].frequency * side).tolist()
    power, ratios = [Curve("training crops", frequency, crops.tolist(), role="image")], []
    for colour, (name, one) in enumerate(generations.items()):
        for what, role in _LOOKS.items():
            mean = one.spectra[what].mean()
            label = f"{name}, {what.split()[0]}"
            power.append(Curve(label, frequency, mean.tolist(), role=role, colour=colour))
            ratios.append(Curve(label, frequency, (10 * (mean / crops).log10()).tolist(), role=role, colour=colour))
    return power, ratios


def _band_title(index: int, one: Generation) -> str:
    place = {0: ", lowest", NUM_BANDS - 1: ", highest"}.get(index, "")
    return f"band {index + 1}{place} ({int(one.floors.cells[index])} cells)"
