"""Maps names of scores of generated images to the networks that compute them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smtool.errors import RecipeError, WeightsError
from smtool.evaluation.feature_pass import Wanted
from smtool.features.extractor import Extractor
from smtool.features.load import load_extractor
from smtool.features.protocol import Protocol

Kind = Literal["frechet", "kernel", "transport", "manifold", "spatial", "recognition"]
GENERATION_SCORES = ("fid", "sfid", "is", "kid", "mind", "pr")
ON_VECTORS = frozenset[Kind]({"frechet", "kernel", "transport", "manifold"})
"""Kinds that compare feature vectors of samples and reference; all but Frechet distances need the vectors themselves."""
_INCEPTION_ONLY: dict[str, Kind] = {"fid": "frechet", "sfid": "spatial", "is": "recognition"}
_ANY_EXTRACTOR: dict[str, Kind] = {"kid": "kernel", "mind": "transport", "pr": "manifold"}
_ALL_VIEWS = "a state dict of Inception (pt_inception-2015-12-05-6726825d.pth)"


@dataclass(frozen=True)
class Question:
    """One extractor and the kinds of scores to compute from its features."""

    extractor: Extractor
    kinds: frozenset[Kind]

    @property
    def wanted(self) -> list[Wanted]:
        """The views that are needed of samples and reference; logits are needed of samples only."""
        views: list[Wanted] = []
        if self.kinds & ON_VECTORS:
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

    fid, sfid and is use Inception; each extractor in `features` adds its Frechet distance; kid, mind and pr use all requested
    extractors, or Inception if there is none. By default: Frechet and kernel distance, precision and recall on random features,
    which need no downloaded weights. Raises RecipeError for an unknown score, WeightsError for missing weights, before anything
    is computed.
    """
    if unknown := sorted(set(scores) - set(GENERATION_SCORES)):
        raise RecipeError(
            f"{unknown[0]!r} is not a score of generated images.",
            hint=f"Scores are {', '.join(GENERATION_SCORES)}; --features adds Frechet distances.",
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
