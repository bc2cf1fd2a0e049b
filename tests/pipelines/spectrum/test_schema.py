import copy
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from smtool.pipelines.spectrum.schema import Report, json_schema
from smtool.pipelines.spectrum.spectra import spectrum
from smtool.report.console import Console

PUBLISHED = Path(__file__).parents[3] / "docs" / "spectrum.schema.json"
_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int, "number": (int, float)
}
_KNOWN = {
    "$defs", "$id", "$ref", "$schema", "additionalProperties", "anyOf", "const", "default", "description", "enum", "items",
    "maxItems", "minItems", "prefixItems", "properties", "required", "title", "type",
}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "") -> list[str]:
    """A small validator of the keywords that the schema uses; any other keyword is a problem itself."""
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
        "write it again: python -c 'import json; from smtool.pipelines.spectrum.schema import json_schema; "
        "print(json.dumps(json_schema(), indent=1))' > docs/spectrum.schema.json"
    )


def test_a_report_of_two_autoencoders_is_valid(drawn, published):
    read = json.loads((drawn.folder / "spectrum.json").read_text())
    assert problems(read, published, published) == []
    Report.model_validate(read)


@pytest.mark.parametrize("what", [["images"], ["control:space-to-depth"]])
def test_reports_of_images_alone_and_of_points_are_valid(what, data, published):
    result = json.loads(json.dumps(spectrum(what, data=data, num_images=6, console=Console(quiet=True))))
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
