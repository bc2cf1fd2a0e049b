"""Fixtures of races: plans of a small recipe, invented scores, and a race.json of an earlier version."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from smtool.commands.race.plan import RacePlan, plan_race
from smtool.commands.race.ranking import rankings
from smtool.commands.race.result import SCHEMA, Images, Result
from smtool.commands.race.trial import Distances, Estimate, Losses, Parameters, Spectra, TrialKey, TrialScores
from smtool.recipe.race import load_race

RECIPE = """
seeds = [0, 1]
turn = 4
[data]
train = "builtin:photos"
image_size = 32
[autoencoders]
changes = ["steps=10", "model.channels=[8, 8, 8]"]
[transformer]
changes = ["steps=9"]
[judge]
predictors = false
[racers.plain]
recipe = "sd-vae"
[racers.dsm]
recipe = "dsm"
"""


@pytest.fixture
def planned(tmp_path) -> Callable[..., RacePlan]:
    """KEY=VALUE -> the plan of RECIPE."""

    def plan(*changes: str) -> RacePlan:
        path = tmp_path / "race.toml"
        path.write_text(RECIPE)
        loaded, entries = load_race(str(path), changes)
        return plan_race(loaded.tables, entries, Path("race"))

    return plan


@pytest.fixture(scope="session")
def written() -> Path:
    """race.json of an earlier version: 4 racers (3 autoencoders), 2 seeds, and one failed racer."""
    return Path(__file__).parent / "race.json"


@pytest.fixture(scope="session")
def scored() -> Callable[..., TrialScores]:
    """(racer, seed, extractor -> (reconstruction distance, gap)) -> scores; all other fields are invented."""

    def scores(racer: str, seed: int, distances: Mapping[str, tuple[float, float]]) -> TrialScores:
        ring = (1.0,)
        return TrialScores(
            cache_key=TrialKey(
                smtool="0", transformer=racer, autoencoder=racer, step=1, sampler={}, images="", validation="",
                features=tuple(distances), num_images=2, seed=seed,
            ),
            racer=racer,
            seed=seed,
            autoencoder=racer,
            step=1,
            num_images=2,
            num_reference=2,
            distances={features: _distances(*pair) for features, pair in distances.items()},
            psnr=Estimate(value=20.0, half_width=1.0),
            losses=Losses(diffusion=1.0, bands=ring, start=ring, floor=ring, learnt=ring, cells=(1,)),
            spectra=Spectra(frequency=ring, images=ring, reconstructions=ring, samples=ring),
            parameters=Parameters(autoencoder=1, transformer=1),
        )  # fmt: skip

    return scores


def _distances(reconstruction: float, gap: float) -> Distances:
    return Distances(
        name="fd",
        extractor_sha256="0",
        dim=1,
        generation=Estimate(value=reconstruction + gap, half_width=0.1),
        kernel_generation=0.0,
        reconstruction=Estimate(value=reconstruction, half_width=0.1),
        kernel_reconstruction=0.0,
        kernel_name="kd",
        gap=gap,
    )


@pytest.fixture(scope="session")
def ranked(scored) -> Callable[[Mapping[str, Sequence[float]]], Result]:
    """racer -> generation distance of each seed -> a result by one judge, without predictors."""

    def result(scores: Mapping[str, Sequence[float]]) -> Result:
        trials = tuple(
            scored(racer, seed, {"random": (1.0, value - 1.0)})
            for racer, values in scores.items()
            for seed, value in enumerate(values)
        )
        return Result(
            schema_=SCHEMA,
            racers=tuple(scores),
            seeds=tuple(range(max(map(len, scores.values())))),
            step=1,
            steps=1,
            tokens=16,
            judge="random",
            images=Images(train="", validation="", image_size=8),
            trials=trials,
            broken={},
            rankings={"random": rankings(tuple(scores), trials, "random")},
            points={},
            predictor_correlations={},
        )

    return result
