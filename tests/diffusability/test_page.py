import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from smtool.diffusability.page import RESULT, chapters, plots, report_page
from smtool.diffusability.report import SCOPE, Report, verdict
from smtool.diffusability.sections.parts import Plot
from smtool.report.tables import Table

pytestmark = pytest.mark.slow
VOID = {"meta", "img", "br", "link", "input", "hr"}
MISSING = {"reason": "it was not measured"}
SECTIONS = {
    "Is the spectrum flattened as the target asks?", "Flattening in the paper's recipe (REFERENCE)",
    "Noise crossing: when diffusion noise hides each frequency",
    "Does each latent frequency decode to its own image frequency?", "Direction: how token vectors vary over space", "Health",
    "Drift: does a transformer of the first autoencoder still fit?",
}


class Read(HTMLParser):
    """Words, attributes and data of a page; checks that its tags are nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words, self.scripts = "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        else:
            self.words += data

    def sections(self) -> list[str]:
        links = [attrs["href"] for tag, attrs in self.seen if tag == "a"]
        headings = [attrs["id"] for tag, attrs in self.seen if tag == "h2"]
        assert links == [f"#{anchor}" for anchor in headings]
        return headings


def page_of(report: Report, *, is_drawn: bool = False) -> str:
    made = chapters(report)
    if not is_drawn:
        made = [replace(chapter, blocks=[_undrawn(block) for block in chapter.blocks]) for chapter in made]
    return report_page(report, {}, made).html()


def _undrawn(block):
    """Replaces plots, which are slow to write, by a table with their caption."""
    return Table("", ("figure",), ((block.caption,),)) if isinstance(block, Plot) else block


def headings(text: str) -> set[str]:
    return {re.sub("&#x27;", "'", title) for title in re.findall(r"<h2[^>]*>(.*?)</h2>", text)}


@pytest.fixture(scope="module")
def text(drawn) -> str:
    return (drawn.folder / "report.html").read_text()


def test_the_report_is_nested_html_with_every_section(text):
    read = Read(text)
    assert len(read.sections()) == len(set(read.sections()))
    assert headings(text) == {"Verdict", *SECTIONS, "Pictures", "Passport and command"}
    assert list(headings(text)) and text.index("Verdict") < text.index("Is the spectrum flattened")


def test_the_report_names_no_outside_address(text):
    without_pictures = re.sub(r'src="data:image/(png|jpeg);base64,[A-Za-z0-9+/=]*"', "", text)
    assert not re.search(r"https?:|//[a-z]|<link|@import|url\((?!#)|href=\"(?!#|data:)|src=", without_pictures)
    assert "default-src 'none'" in text


def test_the_whole_result_can_be_read_back_from_the_page(drawn, text):
    read = Read(text)
    assert [attrs for tag, attrs in read.seen if tag == "script"] == [{"type": "application/json", "id": RESULT}]
    (data,) = read.scripts
    assert json.loads(data) == json.loads((drawn.folder / "spectrum.json").read_text())


def test_every_autoencoder_has_its_verdict_before_all_figures_and_no_rank(drawn, text):
    read = Read(text)
    for autoencoder in drawn.report.autoencoders:
        for found in autoencoder.verdict:
            assert found.sentence in read.words
    assert SCOPE in read.words
    assert text.index(SCOPE.split(";")[0]) < text.index("<svg")


def test_every_figure_is_drawn_once_with_an_alternative_text(drawn, text):
    labels = [attrs["aria-label"] for tag, attrs in Read(text).seen if tag == "svg"]
    made = plots(chapters(drawn.report))
    assert len(made) == 11
    assert labels == [plot.alt for plot in made]
    for plot in made:
        assert plot.caption in Read(text).words


def test_every_picture_is_there_with_its_caption(text):
    captions = [attrs["alt"] for tag, attrs in Read(text).seen if tag == "img"]
    for label, name in (("plain", "low pass"), ("coarse", "low pass"), ("plain", "token similarity"), ("images", "masks")):
        assert any(caption.startswith(f"{label}, {name}. ") for caption in captions)


def test_a_section_that_was_not_measured_is_absent(drawn):
    changed = drawn.report.to_json()
    for autoencoder in changed["autoencoders"]:
        autoencoder["lens"] = MISSING
    text = page_of(Report.model_validate(changed))
    gone = "Noise crossing: when diffusion noise hides each frequency"
    assert headings(text) == {"Verdict", *SECTIONS, "Passport and command"} - {gone}


@pytest.mark.parametrize(("estimator", "gone"), [("physical", "Is the spectrum"), ("reference", "Flattening in the paper's")])
def test_an_estimator_that_was_not_asked_for_is_absent(drawn, estimator, gone):
    changed = drawn.report.to_json()
    del changed["images"][estimator]
    for autoencoder in changed["autoencoders"]:
        autoencoder[estimator] = []
    assert not any(title.startswith(gone) for title in headings(page_of(Report.model_validate(changed))))


def encode_only(drawn) -> Report:
    """The first autoencoder as if it had no decoder."""
    changed = drawn.report.to_json()
    (one, _) = changed["autoencoders"]
    one |= {"can_decode": False, "transfer": MISSING, "low_pass": MISSING}
    one["health"] |= {"grid": MISSING, "shift": {"images": 16, "reconstruction": None, "whole_cell": None, "latent": 0.4}}
    changed["autoencoders"] = [one]
    report = Report.model_validate(changed)
    (read,) = report.autoencoders
    judged = read.model_copy(update={"verdict": verdict(read)})
    return report.model_copy(update={"autoencoders": [judged]})


def test_an_encoder_without_decoder_has_its_flattening_in_both_recipes(drawn):
    text = page_of(encode_only(drawn), is_drawn=True)
    assert headings(text) == {"Verdict", *SECTIONS, "Passport and command"} - {
        "Does each latent frequency decode to its own image frequency?",
        "Drift: does a transformer of the first autoencoder still fit?",
    }
    assert "Encode only" in Read(text).words
    assert "best delta" in Read(text).words      # the paper's analysis of DINOv2


def test_images_alone_have_their_spectrum_and_nothing_else(drawn):
    text = page_of(drawn.report.model_copy(update={"autoencoders": []}), is_drawn=True)
    assert headings(text) == {
        "Verdict", "Power spectrum", "Flattening in the paper's recipe (REFERENCE)", "Passport and command"
    }
    assert "slope" in Read(text).words
    assert SCOPE not in Read(text).words


def command(text) -> list[str]:
    found = re.search(r"<pre><code>(.*?)</code></pre>", text, flags=re.DOTALL)
    return shlex.split(found[1].replace("&#x27;", "'"))


def test_the_command_of_the_page_measures_the_same_again(drawn, text):
    words = command(text)
    assert words[:4] == ["smtool", "spectrum", *(one.path for one in drawn.report.autoencoders)]
    source = drawn.report.passport.data.source
    given = ["--num-images", "48", "--delta", "0.6", "--published", "celeba/dsm"]
    assert words[4:] == ["--data", source, *given, "--full", "--plot"]


def test_the_command_of_the_page_repeats_options_that_are_not_defaults(drawn):
    changed = drawn.report.to_json()
    del changed["images"]["reference"]
    changed["passport"] |= {"reference": "coarse", "downsample_pad": "symmetric"}
    for autoencoder in changed["autoencoders"]:
        autoencoder["reference"] = []
    words = command(page_of(Report.model_validate(changed)))
    assert words[words.index("--reference") + 1] == "coarse"
    assert words[words.index("--downsample-pad") + 1] == "symmetric"
    assert words[words.index("--estimator") + 1] == "physical"


def test_names_are_written_as_they_are_and_never_as_tags(drawn):
    changed = drawn.report.to_json()
    changed["autoencoders"][0]["label"] = "<script>alert(1)</script>"
    text = page_of(Report.model_validate(changed))
    assert "<script>alert" not in text
    assert "<script>alert(1)</script>" in Read(text).words
    assert json.loads(Read(text).scripts[0])["autoencoders"][0]["label"] == "<script>alert(1)</script>"
