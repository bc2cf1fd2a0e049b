"""EQ-VAE's training step: downsampled and rotated latents and images, with LDM's autoencoder."""

import pytest
from given import recording
from given.eqvae_cases import STEPS
from replay.eqvae import replayed


@pytest.mark.parametrize("name", STEPS)
def test_steps_equal_the_released_trainer(name: str):
    assert recording.differences({"steps": recording.read(name)["steps"]}, replayed(name)) == []


def test_an_error_of_1e_4_in_one_term_is_seen():
    name = "eq-vae-anisotropic"
    assert recording.differences({"steps": recording.read(name)["steps"]}, replayed(name, error=1e-4)) != []
