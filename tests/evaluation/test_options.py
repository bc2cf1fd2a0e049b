import pytest

from smtool.errors import DataError
from smtool.evaluation.options import EvalOptions
from smtool.features.protocol import PROTOCOLS


def test_requesting_more_images_than_exist_is_an_error():
    with pytest.raises(DataError, match=r"--num-images 50,000: real holds only 49,984 images") as caught:
        EvalOptions(num_images=50_000).check_number(49_984, "real")
    assert "Leave --num-images out" in str(caught.value)
    EvalOptions(num_images=50_000).check_number(50_000, "real")
    EvalOptions().check_number(3, "real")


def test_only_sampler_settings_and_classes_concern_sampling():
    assert not EvalOptions(seed=4, num_images=9).draws
    assert EvalOptions(changes={"steps": 3}).draws
    assert EvalOptions(labels="0,1").draws


def test_the_rules_are_those_of_the_protocol():
    assert EvalOptions(protocol="adm").rules is PROTOCOLS["adm"]
