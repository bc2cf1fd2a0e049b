"""Steps of SiT with REPA and iREPA: losses, gradient norms, AdamW's updates, averaged weights."""

import pytest
from given import recording
from given.transformer_cases import CASES, Case, feature_maps
from replay.repa import comparable, replayed

from smtool.spectrum.structure import SPATIAL_MEASURES

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=BY_NAME)
def test_steps_equal_the_released_trainer(case: Case):
    recorded = comparable(case, recording.read(case.name))
    assert recording.differences(recorded, replayed(case)) == []


@pytest.mark.parametrize("name", ["repa", "irepa"])
@pytest.mark.parametrize("term", ["alignment", "ema"])
def test_an_error_of_1e_4_in_one_term_is_seen(name: str, term: str):
    case = BY_NAME[name]
    recorded = comparable(case, recording.read(name))
    assert recording.differences(recorded, replayed(case, error={term: 1e-4 if term == "alignment" else -1e-4})) != []


@pytest.mark.parametrize("name", ["lds", "cds", "rmsc"])
def test_measures_of_feature_maps_equal_irepa(name: str):
    recorded = recording.read("irepa-measures")["values"][name]
    assert recording.differences(recorded, SPATIAL_MEASURES[name](feature_maps()).tolist()) == []
