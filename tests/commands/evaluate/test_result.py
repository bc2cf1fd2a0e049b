"""JSON of `smtool eval`: files of earlier versions, the schema, damaged files."""

import csv
import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from smtool.commands.evaluate.record import leave
from smtool.commands.evaluate.result import AnyEvaluation, ReconstructionEvaluation, SampleEvaluation, json_schema
from smtool.evaluation.options import EvalOptions
from smtool.report.console import Console

PUBLISHED = Path(__file__).parents[3] / "docs" / "eval.schema.json"
BEFORE = Path(__file__).with_name("before-typed-results")
"""Files with their tables, written by earlier versions (commit c0e8964; those without rounding: 7e36d47)."""

RECONSTRUCTIONS = ("reconstructions", "warned", "reconstructions-without-rounding")
SAMPLES = ("samples", "unknown-origin", "moments", "samples-without-rounding")


def text(name, ending="json"):
    return (BEFORE / f"{name}.{ending}").read_text()


def read(name):
    return (ReconstructionEvaluation if name in RECONSTRUCTIONS else SampleEvaluation).model_validate_json(text(name))


def test_the_published_schema_is_that_of_this_version():
    assert json.loads(PUBLISHED.read_text()) == json_schema(), (
        "write it again: python -c 'import json; from smtool.commands.evaluate.result import json_schema; "
        "print(json.dumps(json_schema(), indent=1))' > docs/eval.schema.json"
    )


@pytest.mark.parametrize("name", [*RECONSTRUCTIONS, *SAMPLES])
def test_a_file_of_an_earlier_version_is_written_again_with_the_same_names_numbers_and_tables(name, tmp_path):
    evaluation, title = read(name), text(name, "md").splitlines()[0]
    for ending in ("md", "csv"):
        options = EvalOptions(json_path=tmp_path / "a.json", table_path=tmp_path / f"a.{ending}")
        leave(evaluation, options, title=title, console=Console(quiet=True))
    if (BEFORE / f"{name}.md").exists():
        assert (tmp_path / "a.md").read_text() == text(name, "md")
    if (BEFORE / f"{name}.csv").exists():
        old, new = (list(csv.DictReader(table.splitlines())) for table in (text(name, "csv"), (tmp_path / "a.csv").read_text()))
        assert [{column: row[column] for column in old[0]} for row in new] == old
        assert list(new[0])[: len(old[0])] == list(old[0])      # later columns are at the end
    written = json.loads((tmp_path / "a.json").read_text())
    assert written == json.loads(text(name))
    assert list(written["scores"]) == list(json.loads(text(name))["scores"])      # in the order of the table
    assert TypeAdapter(AnyEvaluation).validate_json(text(name)) == evaluation


def test_passports_without_rounding_are_of_uint8_to_the_nearest_level():
    """Older versions always rounded so; their scores are comparable with new ones."""
    old, new = (read(name).scores["psnr"] for name in ("reconstructions-without-rounding", "reconstructions"))
    assert (old.passport.pixels, old.passport.rounding) == ("uint8", "nearest")
    assert old.passport == new.passport
    assert old.value == pytest.approx(new.value, rel=1e-6)


def test_images_of_unknown_origin_have_an_empty_passport():
    assert not read("unknown-origin").samples.drawn.known
    drawn = read("samples").samples.drawn
    assert drawn.known and (drawn.sampler.kind, drawn.labels, drawn.step) == ("heun", "0,2", 7)


def _without_a_passport(found):
    del found["scores"]["psnr"]["passport"]


def _with_a_strange_key(found):
    found["scores"]["psnr"]["speed"] = 1


def _with_text_for_a_number(found):
    found["scores"]["psnr"]["value"] = "much"


def _of_samples(found):
    found["scores"]["psnr"]["passport"] = json.loads(text("samples"))["scores"]["fd_random"]["passport"]


@pytest.mark.parametrize("damage", [_without_a_passport, _with_a_strange_key, _with_text_for_a_number, _of_samples])
def test_a_damaged_file_is_an_error(damage):
    found = json.loads(text("reconstructions"))
    damage(found)
    with pytest.raises(ValidationError):
        TypeAdapter(AnyEvaluation).validate_json(json.dumps(found))
