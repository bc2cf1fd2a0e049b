"""Finds judges that the scored model was trained with: a network in a loss or a teacher, whose scores are biased."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from smtool.checkpoints.learned_from import learned_from
from smtool.inference.sampling import Decoder, GuidedBy
from smtool.tokenizers import identify

Lessons = Mapping[str, Collection[str]]
"""Role of a network in the model's training -> names of the networks with that role."""


def lessons_of_autoencoder(metadata: Mapping[str, Any]) -> Lessons:
    """Networks in the loss of an autoencoder. metadata: of a checkpoint of train-ae; {} for other tokenizers."""
    return {"was in this autoencoder's loss": learned_from(metadata)}


def lessons_of_transformer(metadata: Mapping[str, Any]) -> Lessons:
    """Teachers of a transformer and networks in its autoencoder's loss. metadata: of a checkpoint of train-dit; {} without one.

    Older checkpoints do not state the networks of the autoencoder's loss; these are then read from the autoencoder's file, if it
    exists.
    """
    described = metadata.get("autoencoder", {}).get("learned_from")
    if described is None:
        path = Path(metadata.get("autoencoder_path", ""))
        described = learned_from(identify(path).metadata) if path.is_file() else ()
    return {"was this transformer's teacher": learned_from(metadata), "was in the autoencoder's loss": described}


def lessons_of_decoder(decoder: Decoder | None) -> Lessons:
    """Networks in the loss of an autoencoder that decoded samples in place of the checkpoint's own; {} without one."""
    return {} if decoder is None else {"was in the loss of the decoder": decoder.learned_from}


def lessons_of_guide(guide: GuidedBy | None) -> Lessons:
    """Teachers of a transformer that guided the samples; {} without one."""
    return {} if guide is None else {"was the guide's teacher": guide.learned_from}


def partial_judges(judges: Mapping[str, str], lessons: Lessons) -> dict[str, str]:
    """Judge -> warning, for the judges that the model learned from. judges: name of a judge -> name of its network."""
    found: dict[str, str] = {}
    for judge, network in judges.items():
        for role, names in lessons.items():
            for name in names:
                if _family(name) == _family(network):
                    found.setdefault(judge, f"{name} {role}: rank by another network")
    return found


def _family(name: str) -> str:
    """Family of a network. All DINOv2 sizes are one family, because they were distilled from one network."""
    return "dinov2" if "dinov2" in name else name.removeprefix("timm:").removeprefix("timm_")
