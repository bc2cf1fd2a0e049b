"""Autoencoder steps of Spectrum Matching's trainer: losses, adaptive weight, gradient norms, AdamW's updates, warm-up, both turns."""

import pytest
from given import recording
from given.autoencoder_cases import CASES, Case
from replay.autoencoder import comparable, replayed

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=BY_NAME)
def test_steps_equal_the_released_trainer(case: Case):
    recorded = comparable(case, recording.read(case.name))
    assert {step["turn"] for step in recorded["steps"]} == {"autoencoder", "discriminator"}
    assert recording.differences(recorded, replayed(case)) == []


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("sd-vae-kl", "l1"),
        ("sd-vae-kl", "lpips"),
        ("sd-vae-kl", "adversarial"),
        ("sd-vae-kl", "kl"),
        ("sd-vae-esm-32-cells", "esm"),
        ("sd-vae-esm-8-cells", "esm"),
        ("sd-vae-dsm", "l1"),
    ],
)
def test_an_error_of_1e_4_in_one_term_is_seen(name: str, term: str):
    case = BY_NAME[name]
    recorded = comparable(case, recording.read(name))
    assert recording.differences(recorded, replayed(case, error={term: 1e-4})) != []
