"""The inception score: high if each image is classified with confidence and all classes occur (Salimans et al. 2016)."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

SPLITS = 10


@dataclass(frozen=True)
class InceptionScore:
    """mean, std: over the splits (population std, as published); whole: of all images as one split."""

    mean: float
    std: float
    whole: float
    splits: int


def inception_score(logits: Tensor, *, splits: int = SPLITS) -> InceptionScore:
    """exp(mean KL(p(y|x) || p(y))) of a classifier's logits (N, classes), in float64; between 1 and the number of classes.

    Splits are consecutive: image i * N // splits is the first of split i, as in torch-fidelity and, where N divides, in ADM's
    evaluator. The score depends on the length of a split, so compare it at equal N and splits only.
    """
    if logits.ndim != 2 or len(logits) < splits:
        raise ValueError(f"{splits} splits need logits (N, classes) with N >= {splits}, found {tuple(logits.shape)}")
    if not torch.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")
    log_p = logits.double().log_softmax(1)
    bounds = [i * len(logits) // splits for i in range(splits + 1)]
    scores = torch.stack([_score(log_p[start:stop]) for start, stop in pairwise(bounds)])
    return InceptionScore(scores.mean().item(), scores.std(correction=0).item(), _score(log_p).item(), splits)


def _score(log_p: Tensor) -> Tensor:
    p = log_p.exp()
    return (p * (log_p - p.mean(0).log())).nan_to_num().sum(1).mean().exp()
