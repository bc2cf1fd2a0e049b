"""U-ViT's steps on Stable Diffusion's discrete schedule: loss, gradient norm, AdamW's updates, warm-up, averaged weights."""

import pytest
from given import recording
from given.uvit_cases import CASES, Case
from replay.uvit import replayed

BY_NAME = {case.name: case for case in CASES}


def recorded(name: str) -> dict[str, object]:
    found = recording.read(name)
    return {key: found[key] for key in ("steps", "average")}


@pytest.mark.parametrize("case", CASES, ids=BY_NAME)
def test_steps_equal_the_released_trainer(case: Case):
    assert recording.differences(recorded(case.name), replayed(case)) == []


def test_an_error_of_1e_4_in_the_latents_scale_is_seen():
    assert recording.differences(recorded("uvit"), replayed(BY_NAME["uvit"], error=1e-4)) != []
