"""Steps of Spectrum Matching's autoencoder trainer: losses, adaptive weight, gradient norms, updates, warm-up."""

import pytest
from given import recording
from given.autoencoder_cases import CASES, START, Case
from replay.autoencoder import comparable, replayed

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=BY_NAME)
def test_steps_equal_the_released_trainer(case: Case):
    recorded = comparable(case, recording.read(case.name))
    assert ("discriminator" in {step["turn"] for step in recorded["steps"]}) == case.adversary
    assert recording.differences(recorded, replayed(case)) == []


@pytest.mark.parametrize(
    ("name", "term", "steps"),
    [
        ("sd-vae-kl", "l1", 1),
        ("sd-vae-kl", "lpips", 1),
        ("sd-vae-kl", "kl", 1),
        ("sd-vae-kl", "adversarial", START + 2),
        ("sd-vae-esm-32-cells", "esm", 1),
        ("sd-vae-esm-8-cells", "esm", 1),
        ("sd-vae-dsm", "l1", 1),
    ],
)
def test_an_error_of_1e_4_in_one_term_is_seen(name: str, term: str, steps: int):
    case = BY_NAME[name]
    recorded = comparable(case, recording.read(name))["steps"][:steps]
    assert recording.differences(recorded, replayed(case, steps=steps)["steps"]) == []
    assert recording.differences(recorded, replayed(case, steps=steps, error={term: 1e-4})["steps"]) != []
