"""Citations of the reference pages lead to headings that exist, and only documents of the repository are cited."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs/reference"
PAGES = {name: REFERENCE / f"{name}.md" for name in ("released-code", "spectrum")}
FOLDERS = ("smtool", "tests", "benchmarks", "recipes", "docs", ".ci")
TEXT = {".py", ".toml", ".md", ".txt", ".yml", ".yaml", ".css", ".html", ".json", ".sh"}
CITATION = re.compile(r"(?:\]\(([\w./-]*?))?(?<![\w-])(released-code|spectrum)\.md#([\w-]+)")
PLACEHOLDER = "anchor"      # "cite `spectrum.md` with an anchor" in the rules for contributors
NOT_IN_THE_REPOSITORY = {      # written so that this file does not match itself
    "sections of facts": r"(?<![a-z_])fact[s][,;]?\s+(?:sections?\b|\d)",
    "sheet of definitions": r"definition[_\s-]+she[e]t",
    "sheet": r"\(she[e]t\b|(?<![a-z])the[_\s]+she[e]ts?(?![a-z])|\bshe[e]t(?::\s+\W?\d|, (?:section|first))",
    "definitions": r"spectrum-definition[s]",
    "design": r"(?<![\w-])(?:desig[n]|styl[e]|user[s])\.md\b",
}


def _files() -> Iterator[Path]:
    """Text files of the repository, without copies of recipes and generated files."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in TEXT and not {"_recipes", "__pycache__"} & set(path.parts):
                yield path
    yield from (path for path in sorted(ROOT.iterdir()) if path.suffix in {".md", ".toml"} or path.name == "Makefile")
    yield ROOT / "data/README.md"


def _headings(page: Path) -> list[str]:
    """Texts of the headings, without those in code blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.findall(r"^#{1,6} +(.+?) *$", text, re.M)


def _github_slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _markdown_slug(heading: str) -> str:
    """The default of Python-Markdown's `toc`, which the site uses."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@lru_cache
def _anchors(page: Path) -> frozenset[str]:
    return frozenset(map(_github_slug, _headings(page)))


def _cited_page(path: Path, citation: re.Match[str]) -> Path:
    """The page that a citation means: the target of a Markdown link, otherwise the reference page."""
    folder, name, _ = citation.groups()
    return PAGES[name] if folder is None else (path.parent / f"{folder}{name}.md").resolve()


def _places(path: Path, pattern: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    matches = re.finditer(pattern, text, re.I)
    return [f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}" for match in matches]


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda page: page.name)
def test_headings_have_one_anchor_each_on_the_site_and_on_github(page):
    headings = _headings(page)
    assert len(headings) > 5
    assert len(set(map(_github_slug, headings))) == len(headings)
    assert [_github_slug(heading) for heading in headings] == [_markdown_slug(heading) for heading in headings]


def test_every_citation_of_a_reference_page_leads_to_a_heading():
    broken = []
    for path in _files():
        for citation in CITATION.finditer(path.read_text(encoding="utf-8")):
            page, (_, name, anchor) = _cited_page(path, citation), citation.groups()
            if anchor != PLACEHOLDER and not (page.is_file() and anchor in _anchors(page)):
                broken.append(f"{path.relative_to(ROOT)}: {name}.md#{anchor} is no heading of {page}")
    assert not broken, "\n".join(broken)


def test_citations_are_found_in_code_and_in_links():
    cited = "Source: paper; released-code.md#dsm. See [delta](../docs/reference/spectrum.md#delta)."
    found = [match.groups() for match in CITATION.finditer(cited)]
    assert found == [(None, "released-code", "dsm"), ("../docs/reference/", "spectrum", "delta")]
    assert not CITATION.findall("a-spectrum.md#delta")


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda page: page.name)
def test_links_of_a_reference_page_lead_somewhere(page):
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), file
        assert not anchor or anchor in _anchors(target), f"{file}#{anchor}"


@pytest.mark.parametrize("what", NOT_IN_THE_REPOSITORY)
def test_no_document_outside_the_repository_is_cited(what):
    places = [place for path in _files() for place in _places(path, NOT_IN_THE_REPOSITORY[what])]
    assert not places, "\n".join(places)


@pytest.mark.parametrize("text", [
    "(fac|ts section 1.6)", "Fac|ts, section 8.5: S", "fac|ts 3.1, steps", "(fac|ts\n    sections 1 to 3)", "definition she|et",
    "test_as_in_the_definition_she|et", "(she|et, section 2)", "the she|et measured", "test_the_she|ets_cases", "She|et: 2.1 for",
    "see spectrum-definit|ions", "design.m|d",
])
def test_such_a_citation_is_found(text):
    """The bars keep this file from matching itself."""
    assert any(re.search(pattern, text.replace("|", ""), re.I) for pattern in NOT_IN_THE_REPOSITORY.values())


@pytest.mark.parametrize("text", ['json["facts"]', "the facts that a score carries", "facts = {}", "style_sheet", "style sheet"])
def test_ordinary_words_are_allowed(text):
    assert not any(re.search(pattern, text, re.I) for pattern in NOT_IN_THE_REPOSITORY.values())
