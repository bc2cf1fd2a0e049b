import pytest

from smtool.errors import DataError
from smtool.evaluation.options import EvalOptions
from smtool.features.protocol import PROTOCOLS


def test_more_images_than_there_are_cannot_be_asked_for():
    with pytest.raises(DataError, match=r"--num-images 50,000: real holds 49,984 images only") as caught:
        EvalOptions(num_images=50_000).check_number(49_984, "real")
    assert "Leave --num-images out" in str(caught.value)
    EvalOptions(num_images=50_000).check_number(50_000, "real")
    EvalOptions().check_number(3, "real")


def test_only_changes_of_the_sampler_or_of_classes_ask_something_of_it():
    assert not EvalOptions(seed=4, num_images=9).draws
    assert EvalOptions(changes={"steps": 3}).draws
    assert EvalOptions(labels="0,1").draws


def test_the_rules_are_those_of_the_protocol():
    assert EvalOptions(protocol="adm").rules is PROTOCOLS["adm"]
