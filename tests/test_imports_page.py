"""The modules and names in docs/reference/imports.md exist."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs/reference/imports.md"
RIGHT = [line.split("|")[2] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
NEW = sorted({name for cell in RIGHT for name in re.findall(r"`(smtool[\w.]+)", cell)})


def test_the_page_was_read():
    assert len(NEW) > 60 and "smtool.data.images.open" in NEW


@pytest.mark.parametrize("name", NEW)
def test_every_new_module_and_name_exists(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute)
