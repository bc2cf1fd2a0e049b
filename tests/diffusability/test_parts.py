import numpy as np
import pytest
from pydantic import ValidationError

from smtool.diffusability.sections.parts import Estimate, Reason, banded, headline, measured, or_reason, table_of
from smtool.diffusability.sections.physical import Decibel


def test_what_cannot_be_fitted_or_is_not_finite_becomes_a_reason_and_a_wrong_model_an_error():
    @or_reason
    def fit(value: float) -> Decibel:
        if value < 0:
            raise ValueError("too few rings")
        return Decibel(value=value)

    assert fit(2.0) == Decibel(value=2.0)
    assert fit(-1.0) == Reason(reason="too few rings")
    assert fit(float("nan")) == Reason(reason="the result is not finite")
    with pytest.raises(ValidationError):
        or_reason(lambda: Decibel(decibel=2.0))()


def test_colours_count_the_autoencoders_that_lack_a_part_and_tables_name_their_reasons():
    parts = {"a": Reason(reason="it has no decoder"), "b": Estimate(value=1.0, half_width=None)}
    assert [(colour, label) for colour, label, _ in measured(parts)] == [(1, "b")]
    table = table_of(("value",), parts, lambda one: (f"{one.value:g}",), "note")
    assert table.rows == (("b", "1"),)
    assert table.note == "note\na: it has no decoder"
    assert table_of(("value",), {"a": parts["a"]}, lambda one: ("",), "note") is None


def test_numbers_that_are_missing_leave_a_gap():
    curve = banded([1, 2, 3], [1.0, None, 3.0], [0.5, None, None], colour=0)
    assert np.isnan(curve.y).tolist() == [False, True, False]
    assert np.isnan(curve.high).tolist() == [False, True, True]
    assert banded([1, 2], [1.0, 2.0], None, colour=0).low is None


def test_without_a_headline_there_is_nothing_to_draw():
    with pytest.raises(StopIteration):
        headline([])
