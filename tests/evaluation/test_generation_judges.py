from types import SimpleNamespace

import pytest

from smtool.errors import RecipeError, WeightsError
from smtool.evaluation import generation_judges
from smtool.evaluation.generation_judges import build_questions
from smtool.features.protocol import PROTOCOLS


@pytest.fixture(autouse=True)
def extractors(monkeypatch):
    """Extractors with names and views only; "inception" has all views, as from a state dict."""
    views = {"inception": ("pooled", "spatial", "logits")}

    def load(name, **options):
        return SimpleNamespace(name=name.replace(":", "_"), score=f"fd_{name}", views=views.get(name, ("pooled",)))

    monkeypatch.setattr(generation_judges, "load_extractor", load)
    return views


def options(scores, features=()):
    return {q.extractor.name: set(q.kinds) for q in build_questions(scores, features, PROTOCOLS["clean"])}


def test_kernel_and_manifold_use_every_requested_extractor_or_inception():
    assert options([]) == {"random": {"frechet", "kernel", "manifold"}}
    assert options(["kid"]) == {"inception": {"kernel"}}
    assert options(["mind"], ["random"]) == {"random": {"frechet", "transport"}}
    assert options(["kid", "pr"], ["random", "squeezenet"]) == {
        "random": {"frechet", "kernel", "manifold"},
        "squeezenet": {"frechet", "kernel", "manifold"},
    }
    assert options(["fid", "sfid", "is"]) == {"inception": {"frechet", "spatial", "recognition"}}
    assert options(["fid", "kid"], ["random"]) == {"random": {"frechet", "kernel"}, "inception": {"frechet", "kernel"}}
    assert options(["is"], ["inception"]) == {"inception": {"frechet", "recognition"}}


def test_only_the_needed_views_are_requested():
    (question,) = build_questions(["sfid", "is"], [], PROTOCOLS["clean"])
    assert [item.view for item in question.wanted] == ["spatial", "logits"]
    (question,) = build_questions(["fid"], [], PROTOCOLS["clean"])
    assert [item.view for item in question.wanted] == ["pooled"]


def test_a_view_that_an_extractor_lacks_is_an_error_before_the_pass(extractors):
    extractors["inception"] = ("pooled",)      # from the TorchScript file
    for score in ("sfid", "is"):
        with pytest.raises(WeightsError, match="need a state dict of Inception"):
            build_questions([score], [], PROTOCOLS["clean"])
    with pytest.raises(RecipeError, match="'ssim' is not a score of generated images"):
        build_questions(["fid", "ssim"], [], PROTOCOLS["clean"])
