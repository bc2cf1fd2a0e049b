import base64
import re
from html.parser import HTMLParser

import pytest
import torch

from smtool.report.html import Page
from smtool.report.tables import Table

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Strict(HTMLParser):
    """Collects text and attributes, and fails where tags are not nested."""

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
    page.figure(b"<svg xmlns='http://www.w3.org/2000/svg'/>", alt='a "curve"', caption="falls & rises")
    page.pixels(torch.zeros(3, 2, 2, dtype=torch.uint8), alt="grid", caption="input")
    return page


def test_the_page_is_nested_html_with_all_that_was_put_in(page):
    parser = Strict()
    parser.feed(page.html())
    parser.close()
    assert parser.open == []
    words = "".join(parser.words)
    for text in ("Latents & <friends>", "5 < 6 & 'quotes'", "cat < b", "<dsm>", "24.5", "N = 8", "falls & rises"):
        assert text in words
    assert [attrs["alt"] for tag, attrs in parser.seen if tag == "img"] == ['a "curve"', "grid"]
    assert ("html", {"lang": "en"}) in parser.seen


def test_the_page_holds_its_pictures_and_names_no_outside_address(page):
    text = page.html()
    assert not re.search(r"https?://|//[a-z]|<script|<link|url\(", text)
    assert "default-src 'none'" in text
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 2
    assert base64.b64decode(sources[0].removeprefix("data:image/svg+xml;base64,")).startswith(b"<svg")
    assert base64.b64decode(sources[1].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")


def test_the_page_is_written_whole(page, tmp_path):
    page.write(tmp_path / "run" / "report.html")
    assert (tmp_path / "run" / "report.html").read_text() == page.html()
