"""From names of scores of generated images to the networks that give them, and what must be said of a network as a judge."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from smtool.errors import RecipeError, WeightsError
from smtool.evaluation.feature_pass import Wanted
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.features.protocol import Protocol

Kind = Literal["frechet", "kernel", "manifold", "spatial", "recognition"]
GENERATION_SCORES = ("fid", "sfid", "is", "kid", "pr")
_INCEPTION_ONLY: dict[str, Kind] = {"fid": "frechet", "sfid": "spatial", "is": "recognition"}
_ANY_EXTRACTOR: dict[str, Kind] = {"kid": "kernel", "pr": "manifold"}
_ALL_VIEWS = "a state dict of Inception (pt_inception-2015-12-05-6726825d.pth)"


@dataclass(frozen=True)
class Question:
    """One extractor and the kinds of scores to compute from its features."""

    extractor: Extractor
    kinds: frozenset[Kind]

    @property
    def wanted(self) -> list[Wanted]:
        """The views of samples and reference that are needed; logits are of samples only."""
        views: list[Wanted] = []
        if self.kinds & {"frechet", "kernel", "manifold"}:
            views.append(Wanted(self.extractor))
        if "spatial" in self.kinds:
            views.append(Wanted(self.extractor, "spatial"))
        if "recognition" in self.kinds:
            views.append(Wanted(self.extractor, "logits"))
        return views


def build_questions(
    scores: Collection[str], features: Sequence[str], protocol: Protocol, *, weights_dir: Path | None = None
) -> list[Question]:
    """Names of GENERATION_SCORES and of extractors -> questions.

    fid, sfid and is ask Inception; each extractor of `features` gives its Frechet distance; kid and pr hold for all extractors
    that are asked, or for Inception if none is. With nothing asked: Frechet and kernel distance, precision and recall on
    random features, which need no weights. Raises WeightsError before anything is computed.
    """
    if unknown := sorted(set(scores) - set(GENERATION_SCORES)):
        raise RecipeError(
            f"{unknown[0]!r} is no score of generated images, which have no originals.",
            hint=f"There are {', '.join(GENERATION_SCORES)}, and Frechet distances by --features.",
        )
    if not scores and not features:
        scores, features = {"kid", "pr"}, ["random"]
    common = {kind for name, kind in _ANY_EXTRACTOR.items() if name in scores}
    options: dict[str, set[Kind]] = {name: {"frechet", *common} for name in features}
    of_inception = {kind for name, kind in _INCEPTION_ONLY.items() if name in scores}
    if of_inception or not options:
        options.setdefault("inception", set()).update(of_inception, common)
    loaded = [
        Question(load_extractor(name, weights_dir=weights_dir, protocol=protocol), frozenset(kinds))
        for name, kinds in options.items()
    ]
    for question in loaded:
        for item in question.wanted:
            if item.view not in item.extractor.views:
                raise WeightsError(f"sFID and the inception score need {_ALL_VIEWS}, not the TorchScript file.")
    return loaded


def partial_judges(questions: Sequence[Question], recipe: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> dict[str, str]:
    """Extractor's name -> sentence, where a judge is a network that the transformer or its autoencoder learnt from.

    recipe, autoencoder: the recipes of both, {} where not known.
    """
    teacher = (recipe.get("alignment") or {}).get("teacher", "")
    net = (autoencoder.get("perceptual") or {}).get("net", "vgg") if autoencoder.get("perceptual") else ""
    found = {}
    for name in (question.extractor.name for question in questions):
        if teacher and _family(teacher) == _family(name):
            found[name] = f"{teacher} was this transformer's teacher: rank by another network"
        elif net and {"squeeze": "squeezenet", "vgg": "timm_vgg16", "alex": "timm_alexnet"}[net] == name:
            found[name] = f"{net} was in the autoencoder's loss: rank by another network"
    return found


def _family(name: str) -> str:
    """DINOv2 is one family in all sizes: they were distilled from one network."""
    return "dinov2" if "dinov2" in name else name.replace("timm:", "timm_", 1)
