import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import rich.console
from matplotlib.text import Text
from pydantic import ValidationError

from smtool.diffusability.page import chapters, plots, tables
from smtool.diffusability.report import Report, json_schema
from smtool.diffusability.sections.low_pass import Gap
from smtool.diffusability.sections.parts import Estimate
from smtool.diffusability.spectrum import spectrum
from smtool.report.console import Console

PUBLISHED = Path(__file__).parents[2] / "docs" / "spectrum.schema.json"
_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int, "number": (int, float)
}
_KNOWN = {
    "$defs", "$id", "$ref", "$schema", "additionalProperties", "anyOf", "const", "default", "description", "enum", "items",
    "maxItems", "minItems", "prefixItems", "properties", "required", "title", "type",
}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "") -> list[str]:
    """A small validator for the keywords that the schema uses; any other keyword is reported as a problem."""
    if strange := set(schema) - _KNOWN:
        return [f"{where}: the schema uses {strange}"]
    if "$ref" in schema:
        return problems(value, root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root, where)
    if "anyOf" in schema:
        tried = [problems(value, choice, root, where) for choice in schema["anyOf"]]
        return [] if [] in tried else min(tried, key=len)
    if "const" in schema and value != schema["const"]:
        return [f"{where}: {value!r} is not {schema['const']!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where}: {value!r} is not one of {schema['enum']}"]
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{where}: {value!r} is no {kind}"]
    found = []
    if isinstance(value, dict):
        found += [f"{where}: no {name}" for name in schema.get("required", []) if name not in value]
        rest = schema.get("additionalProperties", {})
        for name, inner in value.items():
            expected = schema.get("properties", {}).get(name, rest)
            found += [f"{where}: {name} is unknown"] if expected is False else problems(inner, expected, root, f"{where}.{name}")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append(f"{where}: {len(value)} items")
        first = schema.get("prefixItems", [])
        for i, inner in enumerate(value):
            found += problems(inner, first[i] if i < len(first) else schema.get("items", {}), root, f"{where}[{i}]")
    return found


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads(PUBLISHED.read_text())


def test_the_published_schema_is_that_of_this_version(published):
    assert published == json_schema(), (
        "write it again: python -c 'import json; from smtool.diffusability.report import json_schema; "
        "print(json.dumps(json_schema(), indent=1))' > docs/spectrum.schema.json"
    )


def test_a_report_of_two_autoencoders_is_valid(drawn, published):
    read = json.loads((drawn.folder / "spectrum.json").read_text())
    assert problems(read, published, published) == []
    Report.model_validate(read)


@pytest.mark.parametrize("what", [["images"], ["control:space-to-depth"]])
def test_reports_of_images_alone_and_of_points_are_valid(what, data, published):
    result = json.loads(json.dumps(spectrum(what, data=data, num_images=6, console=Console(quiet=True)).to_json()))
    assert problems(result, published, published) == []
    Report.model_validate(result)


def _without_delta(report: dict[str, Any]) -> None:
    del report["passport"]["delta"]


def _of_another_version(report: dict[str, Any]) -> None:
    report["schema"] = "smtool.spectrum/1"


def _with_a_strange_key(report: dict[str, Any]) -> None:
    report["autoencoders"][0]["lens"]["drowned"] = 1


def _with_text_for_a_number(report: dict[str, Any]) -> None:
    report["autoencoders"][1]["physical"][0]["power"][3] = "much"


@pytest.mark.parametrize("damage", [_without_delta, _of_another_version, _with_a_strange_key, _with_text_for_a_number])
def test_a_damaged_report_is_not_valid(damage, drawn, published):
    report = copy.deepcopy(json.loads((drawn.folder / "spectrum.json").read_text()))
    damage(report)
    assert problems(report, published, published)
    with pytest.raises(ValidationError):
        Report.model_validate(report)


BEFORE = Path(__file__).with_name("before-typed-results.json")
"""Written by the version before reports had types (commit 893c25e). The text file of the same name holds its tables, with the
numbers of that version and the notes of today."""


def test_a_report_of_an_earlier_version_reads_back_as_it_was():
    report = Report.model_validate_json(BEFORE.read_text())
    assert report.to_json() == json.loads(BEFORE.read_text())


def test_a_report_of_an_earlier_version_has_the_same_tables_and_figures():
    report, shown = Report.model_validate_json(BEFORE.read_text()), io.StringIO()
    for table in tables(report):
        rich.console.Console(file=shown, width=140, highlight=False).print(table)
    lines, before = (text.splitlines() for text in (shown.getvalue(), BEFORE.with_suffix(".txt").read_text()))
    assert [line.rstrip() for line in lines if line.strip()] == [line.rstrip() for line in before if line.strip()]
    head, (plot, *_) = report.autoencoders[0].physical[0], plots(chapters(report))
    words = " ".join(text.get_text() for text in plot.figure.findobj(Text))
    assert f"{head.delta.value:.2f} ± {head.delta.half_width:.2f}" in words


def test_rows_are_rounded_when_they_are_written_and_not_before():
    low_pass = Gap(value=[1 / 3, None], half_width=[2e7 / 3, 1e-9 / 3])
    assert low_pass.value == [1 / 3, None]
    assert low_pass.model_dump(mode="json") == {"value": [0.333333, None], "half_width": [6.66667e6, 3.33333e-10]}


def test_numbers_that_are_not_finite_are_null():
    assert Estimate(value=float("nan"), half_width=float("inf")).model_dump(mode="json") == {"value": None, "half_width": None}
