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
            digits = 3 if mean.value < 10 else 1 if mean.value < 100 else 0
            shown = f"{mean.value:.{digits}f}".removeprefix("0")
            assert f" {shown} ±" in page, f"{racer}, fd_{judge}: {shown}"
