"""Direction: how the unit token vectors of latents vary over space, before and after the filters of iREPA and REPA-DoG."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smtool.config import Config
from smtool.diffusability.sections.parts import (
    Chapter,
    Estimate,
    Number,
    Plot,
    Reason,
    Row,
    array,
    numbers,
    or_reason,
    shown,
    shown_estimate,
)
from smtool.networks.posterior import LatentStats
from smtool.randomness import generator
from smtool.report.plots import Curve
from smtool.report.plots.health import Before, direction_figure
from smtool.report.tables import Table
from smtool.spectrum import (
    SPATIAL_MEASURES,
    SPATIAL_TITLES,
    dct2,
    difference_of_gaussians,
    direction_uniformity,
    spatial_normalize,
    uniform_limit,
)
from smtool.spectrum.transfer import band_of_cell
from smtool.spectrum.units import Units, mean_and_half_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BANDS = 8
GAMMA = 0.6
DOG_SIGMAS = (0.5, 4.0)
"""Gaussian widths in tokens, as in the recipe `repa-dog`; the paper states none (released-code.md#irepa-and-repa-dog)."""
DOG_ALPHA = 1.0


_EARLIER = Reason(reason="not measured by the version that wrote this report")


class Measures(Config):
    """rmsc, lds (of iREPA's code, d >= 6), lds_paper (of its paper, r = H/2) and cds: means over images; uniformity: of the token
    directions of different images."""

    rmsc: Estimate | Reason
    lds: Estimate | Reason
    lds_paper: Estimate | Reason = _EARLIER
    cds: Estimate | Reason
    uniformity: Estimate | Reason = _EARLIER

    @property
    def spatial(self) -> tuple[Estimate | Reason, ...]:
        """The measures of single images, in the order of SPATIAL_TITLES."""
        return self.rmsc, self.lds, self.lds_paper, self.cds


class Filtered(Config):
    """The same measures after the filters of iREPA (spatial_normalize) and REPA-DoG (dog)."""

    spatial_normalize: Measures
    dog: Measures
    gamma: float
    dog_sigmas: tuple[float, float]
    dog_alpha: float


class Direction(Measures):
    """RMSC, LDS, CDS and uniformity of the tokens, and their directional energy.

    uniform_directions: the uniformity of evenly spread directions in as many channels. energy: spectral energy of the unit tokens
    by latent band, without DC; the bands sum to the mean of RMSC squared (arXiv 2603.14645, Proposition 3.2).
    """

    images: int
    tokens: tuple[int, int]
    bands: int
    energy: Row
    uniform_directions: Number = None
    after: Filtered


@torch.no_grad()
def measure(latents: Tensor, stats: LatentStats, units: Units) -> Direction:
    """Measures of raw latents (N, C, h, w), normalized by `stats` first, with jackknife intervals over units."""
    features = stats.normalize(latents.float())
    height, width = features.shape[-2:]
    energy = _energy(features, units)
    return Direction(
        **dict(_measures(features, units)),
        images=len(latents), tokens=(height, width), bands=len(energy), energy=energy,
        uniform_directions=uniform_limit(features.shape[1]),
        after=Filtered(
            spatial_normalize=_measures(spatial_normalize(features, GAMMA), units),
            dog=_measures(filtered_by_dog(features), units),
            gamma=GAMMA, dog_sigmas=DOG_SIGMAS, dog_alpha=DOG_ALPHA,
        ),
    )


def filtered_by_dog(features: Tensor) -> Tensor:
    """Features after REPA-DoG's difference of Gaussians, with the widths of this section."""
    return difference_of_gaussians(features, *DOG_SIGMAS, DOG_ALPHA)


def _measures(features: Tensor, units: Units) -> Measures:
    found = {name: _interval(function, features, units) for name, function in SPATIAL_MEASURES.items()}
    return Measures(**found, uniformity=_uniformity(features, units))


@or_reason
def _uniformity(features: Tensor, units: Units) -> Estimate:
    found = direction_uniformity(features, draws=generator("spectrum", "uniformity"), groups=units.numbers())
    return Estimate(value=found.value, half_width=found.half_width)


@or_reason
def _interval(measure: Callable[[Tensor], Tensor], features: Tensor, units: Units) -> Estimate:
    """Mean over units with its interval. One image at a time: a measure needs eight times a feature map's memory (twice the side,
    in float64)."""
    values = torch.cat([measure(image) for image in features.split(1)]).cpu().double()
    mean, half_width = mean_and_half_width(units.collapse(values[:, None]))
    return Estimate(value=mean.item(), half_width=half_width.item())


def _energy(features: Tensor, units: Units) -> list[float | None]:
    """Energy per token of the unit tokens' DCT in each band of `band_of_cell`, without DC."""
    height, width = features.shape[-2:]
    num_bands = min(BANDS, height, width)
    energy = dct2(torch.nn.functional.normalize(features, dim=1)).square().sum(1).double().cpu() / (height * width)
    energy[:, 0, 0] = 0                                                                     # (N, h, w)
    band = band_of_cell(height, width, num_bands).flatten()
    table = energy.new_zeros(len(energy), num_bands).index_add(1, band, energy.flatten(1))
    return numbers(units.collapse(table).mean(0))


def chapter(parts: Mapping[str, Direction]) -> Chapter:
    blocks = (Plot("direction", lambda: draw(parts), *_WORDS), table(parts)) if parts else ()
    return Chapter("Direction: how token vectors vary over space", blocks, pictures=("token-similarity",))


_WORDS = (
    "RMSC, LDS and CDS of the latents' tokens before and after two filters; right, directional energy by band.",
    "RMSC: how much the directions of token vectors vary over space. LDS: how much more similar neighbouring tokens are than "
    "distant ones, by iREPA's code (neighbours against 6 or more tokens apart) and by its paper (nearer than half a side against "
    "further). CDS: how fast similarity falls with distance. Open symbols: after the filters of iREPA and REPA-DoG. Larger "
    "means more spatial structure; no threshold is known. Right: energy outside the mean direction, by band.",
)


def table(parts: Mapping[str, Direction]) -> Table:
    rows = [
        (label if way == "unfiltered" else "", way, *map(shown_estimate, (*measures.spatial, measures.uniformity)))
        for label, part in parts.items()
        for way, measures in (("unfiltered", part), ("iREPA", part.after.spatial_normalize), ("REPA-DoG", part.after.dog))
    ]
    limits = ", ".join(f"{shown(part.uniform_directions)} ({label})" for label, part in parts.items())
    note = (
        "A dash: the grid has no tokens so far apart. Uniformity: log of the mean of exp(-2 |u - v|^2) over unit tokens of "
        f"different images; 0: all have one direction; evenly spread directions in as many channels: {limits}."
    )
    return Table("", ("autoencoder", "tokens", *SPATIAL_TITLES.values(), "uniformity"), tuple(rows), note)


def draw(parts: Mapping[str, Direction]) -> "Figure":
    """Figure with RMSC, LDS and CDS before and after the two filters, and the directional energy by band."""
    ways = {
        label: (part.spatial, part.after.spatial_normalize.spatial, part.after.dog.spatial) for label, part in parts.items()
    }
    panels = {
        name: {label: Before([_bar(measures[index]) for measures in filtered]) for label, filtered in ways.items()}
        for index, name in enumerate(SPATIAL_TITLES.values())
    }
    energy = [Curve(label, range(1, len(part.energy) + 1), array(part.energy), colour=colour)
              for colour, (label, part) in enumerate(parts.items())]
    return direction_figure(panels, energy)


def _bar(found: Estimate | Reason) -> tuple[float | None, float | None]:
    return (None, None) if isinstance(found, Reason) else (found.value, found.half_width)
