"""A small fixed share of the campaign: some mutated inputs of every kind, in this process, and faults in one command."""

import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from campaign.inputs import KINDS, chosen
from campaign.kills.faults import Operations
from campaign.mutation import mutated_bytes, mutated_value
from campaign.originals import build
from campaign.sandbox import Case, Sandbox, judged
from smtool.errors import DataError


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    build(folder)
    return folder


@pytest.fixture
def box(tmp_path, monkeypatch) -> Sandbox:
    monkeypatch.chdir(tmp_path)      # restored at the end; a sandbox changes the working directory
    return Sandbox(tmp_path / "a/b/c/box")


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_inputs_end_in_success_or_one_sentence(originals, box, kind):
    for number in [n for n in range(300) if chosen(n) == kind][:_SHARE.get(kind, 12)]:
        box.clear()
        case = KINDS[kind](originals, Random(f"share/{number}"), box)
        end = box.run(case)
        assert not end.fault, (number, case.tried, end)


_SHARE = {"run folders": 3, "tensor files": 20, "recipes": 20}


def test_mutations_differ_from_their_original_and_are_the_same_for_a_seed():
    data, value = bytes(range(200)), {"a": [1, 2.5, {"b": "text"}], "c": None}
    for mutate, original in ((mutated_bytes, data), (mutated_value, value)):
        found = [mutate(original, Random(seed)) for seed in range(200)]
        assert repr(found) == repr([mutate(original, Random(seed)) for seed in range(200)])
        assert sum(repr(changed) != repr(original) for _, changed in found) > 150
    assert value == {"a": [1, 2.5, {"b": "text"}], "c": None}


def test_the_judge_finds_other_exceptions_empty_messages_and_changes_outside(box):
    def fail(error):
        raise error

    assert not judged(Case("", lambda: fail(DataError("A file is damaged.")))).fault
    assert judged(Case("", lambda: fail(KeyError("x")))).fault.startswith("KeyError")
    assert "no sentence" in judged(Case("", lambda: fail(DataError(" ")))).fault
    assert judged(Case("", lambda: fail(MemoryError()))).fault
    assert not judged(Case("", lambda: fail(MemoryError()), memory=True)).fault
    box.clear()
    assert not box.run(Case("", lambda: Path("inside-out").write_text("x"))).fault
    assert "outside" in box.run(Case("", lambda: (box.place / "x").write_text("x"))).fault


def test_file_operations_are_counted_and_stopped_at_the_chosen_one():
    seen = []
    hook = Operations(1, lambda: seen.append("acted"))
    reading, writing = ("open", ("x", "r", os.O_RDONLY)), ("open", ("x", "w", os.O_WRONLY))
    for event, arguments in (reading, ("os.mkdir", ()), writing, ("os.rename", ())):
        hook(event, arguments)
    assert (hook.count, seen) == (3, ["acted"])


def test_every_kind_has_its_share():
    counts = Counter(chosen(number) for number in range(100))
    assert counts.keys() == KINDS.keys() and sum(counts.values()) == 100
