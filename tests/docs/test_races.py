"""The race.json files behind the pages of results: this version reads them, and the pages show their numbers."""

from pathlib import Path

import pytest

from smtool.commands.race.result import read_race

RESULTS = Path(__file__).parents[2] / "docs" / "results"
RACES = sorted(path.parent for path in (RESULTS / "races").glob("*/race.json"))


@pytest.mark.parametrize("folder", RACES, ids=lambda folder: folder.name)
def test_the_page_of_a_race_shows_the_generation_of_every_racer(folder):
    result = read_race(folder)
    page = next(path for path in RESULTS.glob("*.md") if f"races/{folder.name}/" in path.read_text()).read_text()
    for judge, ranking in result.rankings.items():
        for racer, mean in ranking.generation.racers.items():
            shown = _by_frechet(mean.value) if result.metric == "fd" else _in_thousands(mean.value)
            assert f" {shown} ±" in page, f"{racer}, {result.metric} on {judge}: {shown}"


def _by_frechet(value: float) -> str:
    digits = 3 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}".removeprefix("0")


def _in_thousands(value: float) -> str:
    """Kernel distances: in thousandths below 1, in thousands from 10,000."""
    scaled = 1000 * value if value < 1 else value / 1000 if value >= 10_000 else value
    return f"{scaled:.2f}" if scaled < 100 else f"{scaled:.0f}"
