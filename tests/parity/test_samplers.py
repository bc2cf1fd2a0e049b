"""REPA's samplers: Euler, Heun and Euler-Maruyama, with guidance in a time interval."""

import pytest
from given import recording
from given.sampling_cases import CASES, Case
from replay.samplers import replayed

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", BY_NAME.values(), ids=BY_NAME)
def test_latents_equal_the_released_samplers(case: Case):
    recorded = recording.read("repa-samplers")["latents"][case.name]
    assert recording.differences(recorded, replayed(case)) == []


def test_an_error_of_1e_4_in_the_guidance_is_seen():
    recorded = recording.read("repa-samplers")["latents"]["euler-guided"]
    assert recording.differences(recorded, replayed(BY_NAME["euler-guided"], error=1e-4)) != []
