import base64
import json
import re
from html.parser import HTMLParser

import pytest
import torch

from smtool.report.html import Card, Page, Statement
from smtool.report.plots import Curve
from smtool.report.plots.power import power_figure
from smtool.report.tables import Table

DATA = {"label": "</script><b>", "values": [1.5, None], "unit": "µ"}
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Strict(HTMLParser):
    """Collects text and attributes; fails if tags are not nested correctly."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def page() -> Page:
    page = Page("Latents & <friends>")
    page.section("What was done")
    page.text("5 < 6 & 'quotes'")
    page.commands("smtool spectrum a.safetensors --plot", "cat < b")
    page.table(Table("Scores", ("name", "PSNR"), (("<dsm>", "24.5"),), note="N = 8"))
    page.cards([Card("<plain>", "f4", [Statement("warn", "Not <flattened>: delta < 1"), Statement("good", "fine")])])
    page.summary({"digest <x>": "abc & def"})
    page.section("What was done")
    for _ in range(2):
        page.figure(power_figure([Curve("a", [1, 2], [1, 2])], title="t", note="n"), alt='a "curve"', caption="falls & rises")
    page.data("numbers", DATA)
    page.pixels(torch.zeros(3, 2, 2, dtype=torch.uint8), alt="grid", caption="input")
    return page


def test_the_page_is_well_nested_html_with_all_its_content(page):
    parser = Strict()
    parser.feed(page.html())
    parser.close()
    assert parser.open == []
    words = "".join(parser.words)
    assert "digest <x>" in words and "abc & def" in words
    for text in ("Latents & <friends>", "5 < 6 & 'quotes'", "cat < b", "<dsm>", "24.5", "N = 8", "falls & rises"):
        assert text in words
    assert [attrs["alt"] for tag, attrs in parser.seen if tag == "img"] == ["grid"]
    assert [attrs["aria-label"] for tag, attrs in parser.seen if tag == "svg"] == ['a "curve"'] * 2
    assert ("html", {"lang": "en"}) in parser.seen


def test_the_page_holds_its_pictures_and_has_no_outside_url(page):
    text = page.html()
    assert "default-src 'none'" in text
    (source,) = re.findall(r'src="([^"]*)"', text)
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert not re.search(r"https?:|//[a-z]|<link|url\((?!#)|@import|href=\"(?!#)", text.replace(source, ""))


def test_ids_are_unique_and_every_link_has_a_target(page):
    parser = Strict()
    parser.feed(page.html())
    ids = [attrs["id"] for _, attrs in parser.seen if "id" in attrs]
    assert len(set(ids)) == len(ids)
    links = [attrs["href"] for _, attrs in parser.seen if "href" in attrs]
    assert len(links) > 2
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_the_contents_list_every_section_in_order(page):
    contents = re.findall(r'<li><a href="#([^"]*)">([^<]*)</a>', page.html())
    assert [title for _, title in contents] == ["What was done"] * 2
    assert [f'<h2 id="{anchor}">' in page.html() for anchor, _ in contents] == [True, True]


def test_data_can_be_read_back_and_are_not_run_by_browsers(page):
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page.html(), flags=re.DOTALL)
    assert [attributes for attributes, _ in scripts] == [' type="application/json" id="numbers"']
    assert json.loads(scripts[0][1]) == DATA


def test_nan_in_data_is_an_error(page):
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.data("bad", float("nan"))


def test_a_tone_is_shown_by_a_sign_and_named_by_a_word(page):
    text = page.html()
    assert text.count('aria-label="warning">!</span>') == 1
    assert "<strong>Not &lt;flattened&gt;: </strong>delta &lt; 1" in text


def test_the_page_is_written_whole(page, tmp_path):
    page.write(tmp_path / "run" / "report.html")
    assert (tmp_path / "run" / "report.html").read_text() == page.html()
