"""SiT: reading of its weights, its loss, and its SDE sampler."""

from given import recording
from replay.sit import replayed


def test_loss_and_latents_equal_the_released_code(tmp_path):
    found = recording.read("sit")
    recorded = {key: found[key] for key in ("loss", "latents")}
    assert recording.differences(recorded, replayed(tmp_path)) == []
