import copy
import json
import re
import shlex
from html.parser import HTMLParser

import pytest

from smtool.pipelines.spectrum.captions import FIGURES
from smtool.pipelines.spectrum.figures import figures
from smtool.pipelines.spectrum.page import RESULT, report_page
from smtool.pipelines.spectrum.verdict import SCOPE, verdict

VOID = {"meta", "img", "br", "link", "input", "hr"}
MISSING = {"reason": "it was not measured"}
SECTIONS = {
    "Is it flattened like it should be?", "The same in the paper's recipe (REFERENCE)", "What diffusion noise leaves of it",
    "Does each latent frequency decode to its own image frequency?", "Direction: how tokens vary in space", "Health",
}


class Read(HTMLParser):
    """Words, attributes and the data of a page whose tags are nested."""

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


def page_of(result, drawn) -> str:
    return report_page(result, {}, drawn).html()


@pytest.fixture(scope="module")
def made(drawn):
    return figures(drawn.result)


def without(made, *names):
    assert set(names) <= made.keys()
    return {name: figure for name, figure in made.items() if name not in names}


def headings(text: str) -> set[str]:
    return {re.sub("&#x27;", "'", title) for title in re.findall(r"<h2[^>]*>(.*?)</h2>", text)}


@pytest.fixture(scope="module")
def text(drawn) -> str:
    return (drawn.folder / "report.html").read_text()


def test_the_report_is_nested_html_with_every_section(text):
    read = Read(text)
    assert len(read.sections()) == len(set(read.sections()))
    assert headings(text) == {"Verdict", *SECTIONS, "Pictures", "Passport, and how to repeat it"}
    assert list(headings(text)) and text.index("Verdict") < text.index("Is it flattened")


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
    for autoencoder in drawn.result["autoencoders"]:
        for found in autoencoder["verdict"]:
            assert found["sentence"] in read.words
    assert SCOPE in read.words
    assert text.index(SCOPE.split(";")[0]) < text.index("<svg")


def test_every_figure_is_drawn_once_with_words_for_those_who_cannot_see_it(made, text):
    labels = [attrs["aria-label"] for tag, attrs in Read(text).seen if tag == "svg"]
    assert sorted(labels) == sorted(FIGURES[name].alt for name in made)
    for name in made:
        assert FIGURES[name].caption in Read(text).words


def test_every_picture_is_there_with_its_caption(text):
    captions = [attrs["alt"] for tag, attrs in Read(text).seen if tag == "img"]
    for label, name in (("plain", "low pass"), ("coarse", "low pass"), ("plain", "token similarity"), ("images", "masks")):
        assert any(caption.startswith(f"{label}, {name}. ") for caption in captions)


@pytest.mark.parametrize(("section", "names", "gone"), [
    ("lens", ("lens", "crossing"), "What diffusion noise leaves of it"),
    ("direction", ("direction",), "Direction: how tokens vary in space"),
])
def test_a_section_that_was_not_measured_is_absent(drawn, made, section, names, gone):
    result = copy.deepcopy(drawn.result)
    for autoencoder in result["autoencoders"]:
        autoencoder[section] = {"rmsc": MISSING, "lds": MISSING, "cds": MISSING} if section == "direction" else MISSING
    text = page_of(result, without(made, *names))
    assert headings(text) == {"Verdict", *SECTIONS, "Passport, and how to repeat it"} - {gone}


@pytest.mark.parametrize(("estimator", "gone"), [("physical", "Is it flattened"), ("reference", "The same in the paper's")])
def test_an_estimator_that_was_not_asked_for_is_absent(drawn, made, estimator, gone):
    result = copy.deepcopy(drawn.result)
    del result["images"][estimator]
    for autoencoder in result["autoencoders"]:
        autoencoder[estimator] = []
    assert not any(title.startswith(gone) for title in headings(page_of(result, without(made, estimator))))


def encode_only(drawn):
    """The first autoencoder as if it had no decoder."""
    result = copy.deepcopy(drawn.result)
    (one, _) = result["autoencoders"]
    one |= {"can_decode": False, "transfer": MISSING, "low_pass": MISSING}
    one["health"] |= {"grid": MISSING, "shift": {"images": 16, "reconstruction": None, "whole_cell": None, "latent": 0.4}}
    one["verdict"] = verdict(one)
    result["autoencoders"] = [one]
    return result


def test_an_encoder_alone_has_its_flattening_in_both_recipes(drawn):
    result = encode_only(drawn)
    text = page_of(result, figures(result))
    assert headings(text) == {"Verdict", *SECTIONS, "Passport, and how to repeat it"} - {
        "Does each latent frequency decode to its own image frequency?"
    }
    assert "Encode only" in Read(text).words
    assert "best delta" in Read(text).words      # the paper's analysis of DINOv2


def test_images_alone_have_their_spectrum_and_nothing_else(drawn):
    result = drawn.result | {"autoencoders": []}
    text = page_of(result, figures(result))
    assert headings(text) == {
        "Verdict", "Power spectrum", "The same in the paper's recipe (REFERENCE)", "Passport, and how to repeat it"
    }
    assert "slope" in Read(text).words
    assert "autoencoder a diffusion" not in Read(text).words


def command(text) -> list[str]:
    found = re.search(r"<pre><code>(.*?)</code></pre>", text, flags=re.DOTALL)
    return shlex.split(found[1].replace("&#x27;", "'"))


def test_the_command_of_the_page_measures_the_same_again(drawn, text):
    words = command(text)
    data = drawn.result["passport"]["data"]
    assert words[:4] == ["smtool", "spectrum", *(one["path"] for one in drawn.result["autoencoders"])]
    assert words[4:] == ["--data", data["source"], "--num-images", "48", "--delta", "0.6", "--published", "celeba/dsm", "--plot"]


def test_the_command_of_the_page_repeats_choices_that_are_no_defaults(drawn):
    result = copy.deepcopy(drawn.result)
    del result["images"]["reference"]
    result["passport"] |= {"reference": "coarse", "downsample_pad": "symmetric"}
    for autoencoder in result["autoencoders"]:
        autoencoder["reference"] = []
    words = command(page_of(result, {}))
    assert words[words.index("--reference") + 1] == "coarse"
    assert words[words.index("--downsample-pad") + 1] == "symmetric"
    assert words[words.index("--estimator") + 1] == "physical"


def test_names_are_written_as_they_are_and_never_as_tags(drawn):
    result = copy.deepcopy(drawn.result)
    result["autoencoders"][0]["label"] = "<script>alert(1)</script>"
    text = page_of(result, {})
    assert "<script>alert" not in text
    assert "<script>alert(1)</script>" in Read(text).words
    assert json.loads(Read(text).scripts[0])["autoencoders"][0]["label"] == "<script>alert(1)</script>"
