"""Judges that a loss learned from: what is scored was trained to please them."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from smtool.checkpoints.learned_from import learned_from
from smtool.tokenizers import identify

Lessons = Mapping[str, Collection[str]]
"""What a network was to the model -> names of the networks that were that."""


def lessons_of_autoencoder(metadata: Mapping[str, Any]) -> Lessons:
    """metadata: of a checkpoint of train-ae; {} for other tokenizers."""
    return {"was in this autoencoder's loss": learned_from(metadata)}


def lessons_of_transformer(metadata: Mapping[str, Any]) -> Lessons:
    """metadata: of a checkpoint of train-dit; {} where there is none.

    An older one does not state what its autoencoder learned from: then that of the autoencoder's own file counts, if it exists.
    """
    described = metadata.get("autoencoder", {}).get("learned_from")
    if described is None:
        path = Path(metadata.get("autoencoder_path", ""))
        described = learned_from(identify(path).metadata) if path.is_file() else ()
    return {"was this transformer's teacher": learned_from(metadata), "was in the autoencoder's loss": described}


def partial_judges(judges: Mapping[str, str], lessons: Lessons) -> dict[str, str]:
    """Judge -> sentence, of those that the model learned from. judges: what a judge is called -> the name of its network."""
    found: dict[str, str] = {}
    for judge, network in judges.items():
        for role, names in lessons.items():
            for name in names:
                if _family(name) == _family(network):
                    found.setdefault(judge, f"{name} {role}: rank by another network")
    return found


def _family(name: str) -> str:
    """DINOv2 is one family in all sizes: they were distilled from one network."""
    return "dinov2" if "dinov2" in name else name.removeprefix("timm:").removeprefix("timm_")
