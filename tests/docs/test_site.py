"""The site, and the pages of the repository: they build, their links lead somewhere, their commands can be typed."""

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer
import yaml

from smtool import __version__, errors
from smtool.cli import app
from smtool.recipe import TrainAE, TrainDiT, load
from smtool.recipe.race import Race

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
COMMANDS = typer.main.get_command(app).commands


def _name(page):
    return page.relative_to(ROOT).as_posix()


def _prose(page):
    """The text without blocks of code, whose brackets are no links."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def _anchors(page):
    """The anchors that Python-Markdown gives a page's headings."""
    headings = re.findall(r"^#+ (.+?)(?: \{[^}]*\})?$", _prose(page), re.M)
    plain = [re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in plain}


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]+)|<link[^>]* href=\"([^\"]+)", html)
        assert not [one for pair in loaded for one in pair if re.match(r"(https?:)?//", one)], page
    _check_citations(tmp_path / "site" / "reference")


def _check_citations(reference):
    """Docstrings cite headings of the two reference pages as plain text, which a hook turns into links."""
    html = {page: page.read_text(encoding="utf-8") for page in reference.rglob("*.html")}
    links = [(page, *link) for page, text in html.items() for link in
             re.findall(r'<a href="([^"]*(?:released-code|spectrum)\.html)#([^"]+)">(?:released-code|spectrum)\.md#', text)]
    assert len(links) > 20
    for page, target, anchor in links:
        assert f'id="{anchor}"' in html[(page.parent / target).resolve()], (page, target, anchor)


def _links():
    """(page, target) of every link and picture that leads to a file of the repository."""
    for page in PAGES:
        text = re.sub(r"`[^`\n]*`", "", _prose(page))
        for target in dict.fromkeys(re.findall(r"\]\(([^)\s]+)[^)]*\)", text)):
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), [pytest.param(*link, id=f"{_name(link[0])}-{link[1]}") for link in _links()])
def test_links_lead_to_files_and_headings_that_are_there(page, target):
    file, _, anchor = unquote(target).partition("#")
    there = page.parent / file if file else page
    assert there.exists(), f"{_name(page)}: {target}"
    if anchor and there.suffix == ".md" and there.parent.name != "python":      # there, mkdocstrings makes the headings
        assert anchor in _anchors(there), f"{_name(page)}: {target}"


def _words(line):
    """The words after `smtool` of each command in a line of a shell; none of a line that calls something else."""
    if not re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ |.*-m )*smtool [a-z]", line):
        return
    lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    call: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";&|<>"):
            if "smtool" in call:
                yield tuple(call[call.index("smtool") + 1 :])
            call = []
        else:
            call.append(word)


def _lines():
    """(page, whether it is a whole command, words) of every command line; those in blocks of code are whole."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^( *)```(?:console|bash|sh|text)?(?: [^\n]*)?\n(.*?)^\1```", text, re.M | re.S)
        for line in (line for _, block in blocks for line in block.splitlines() if "[OPTIONS]" not in line):
            yield from ((page, True, words) for words in _words(line))
        inline = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.M | re.S)
        for line in re.findall(r"`((?:[^`\n]*-m )?smtool [a-z][^`\n]*)`", inline):
            yield from ((page, False, words) for words in _words(line))


LINES = list(dict.fromkeys(_lines()))


def _parsed(words):
    """The command, and the error of the real parser, or None."""
    command, name, *rest = COMMANDS[words[0]], *words
    while hasattr(command, "commands") and rest:
        name = rest.pop(0)
        command = command.commands[name]
    try:
        command.make_context(name, rest)
    except Exception as error:      # typer brings a Click of its own, whose names are not public
        return command, error
    return command, None


def test_command_lines_were_found():
    assert len([page for page, _, _ in LINES if page.name == "README.md"]) >= 6
    assert len([whole for _, whole, _ in LINES if whole]) > 40


@pytest.mark.parametrize(("page", "whole", "words"), LINES, ids=lambda one: _name(one) if isinstance(one, Path) else None)
def test_commands_can_be_typed(page, whole, words):
    """Commands, options and values exist; a part in a sentence may lack an argument or a value."""
    assert words[0] in COMMANDS, words
    _, error = _parsed(words)
    if not whole and type(error).__name__ in ("MissingParameter", "BadOptionUsage"):
        return
    assert error is None, f"{_name(page)}: smtool {shlex.join(words)}: {error}"


RECIPES = [(page, words) for page, _, words in LINES if re.match(r"(recipes/)?[a-z]", words[1] if len(words) > 1 else "")
           and words[0] in ("train-ae", "train-dit", "race") and "$" not in " ".join(words)]


@pytest.mark.parametrize(("page", "words"), RECIPES, ids=lambda one: _name(one) if isinstance(one, Path) else None)
def test_recipes_that_are_named_exist_and_take_the_changes(page, words):
    if not words[1].startswith("recipes/"):
        return      # a file of the reader's, a run, or a name of its own
    kind = {"train-ae": TrainAE, "train-dit": TrainDiT, "race": Race}[words[0]]
    changes = [value for option, value in pairwise(words) if option == "--set"]
    init = r"^(model\.init=|model={init=)[^}]*"      # a run of the reader
    changes = [re.sub(init, r"\g<1>'specimen:plain'", change) for change in changes]
    load(words[1], kind, [change for change in changes if not re.search(r"[A-Z]{3}|\.\.\.", change)])


def test_every_exit_code_has_its_row_and_an_example():
    text = (ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.SmtoolError)]
    for code in sorted({0, *(kind.exit_code for kind in kinds)}):
        assert f"\n| {code} |" in text
        assert code == 0 or f"\n**{code}, " in text


def test_the_citation_has_what_its_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["cff-version"], citation["type"], citation["version"]) == ("1.2.0", "software", __version__)
    assert citation["license"] == "Apache-2.0"
    for reference in citation["references"]:
        assert {"authors", "title", "type"} <= set(reference)
        assert all({"family-names", "given-names"} <= set(author) or "name" in author for author in reference["authors"])
        (number,) = [one["value"].removeprefix("arXiv:") for one in reference["identifiers"]]
        assert reference["url"] == f"https://arxiv.org/abs/{number}"
