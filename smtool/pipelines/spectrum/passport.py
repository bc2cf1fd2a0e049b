"""What must be known to read a report's numbers, or to repeat them; and what they cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from smtool.pipelines.spectrum.measure import Pass
from smtool.pipelines.spectrum.passes import peak_memory_mb
from smtool.spectrum import Estimator


def passport(
    gathered: Pass,
    data: str,
    estimators: Sequence[Estimator],
    *,
    delta: float,
    reference: str | None,
    downsample_pad: str | None,
    device: str,
) -> dict[str, Any]:
    """Data, choices, and how many images every section used. reference: label of the latent that time shifts match."""
    return {
        "data": _data(gathered, data),
        "delta": delta,
        "reference": reference,
        "downsample_pad": downsample_pad,
        "estimators": [estimator.label for estimator in estimators],
        "posterior": {subject.label: list(subject.rings.kinds) for subject in gathered.subjects},
        "interval": f"95%, jackknife over {gathered.units.name}s, Student's t",
        "stopped": gathered.stopped,
        "images": _images(gathered),
        "device": device,
        "torch": torch.__version__,
    }


def cost(gathered: Pass, seconds: Mapping[str, float], *, device: str) -> dict[str, Any]:
    """Seconds of every section, those of the network passes alone, and the most memory held; no two runs have the same."""
    return {
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "passes": {
            subject.label: {"encode": subject.meter.encode.to_json(), "decode": subject.meter.decode.to_json()}
            for subject in gathered.subjects
        },
        "pass_seconds": round(sum(subject.meter.seconds for subject in gathered.subjects), 3),
        "report_seconds": round(sum(seconds.values()), 3),
        "peak_memory_mb": peak_memory_mb(device),
    }


def _images(gathered: Pass) -> dict[str, int]:
    """Images by section; all are the first of the pass, in stored order."""
    counts, first = gathered.counts, sum(map(len, gathered.kept))
    used = {"low_pass": counts.low_pass, "transfer": counts.transfer, "shift": counts.shifts, "direction": counts.low_pass}
    return {"spectra": len(gathered.units.groups), **{name: min(number, first) for name, number in used.items()}}


def _data(gathered: Pass, data: str) -> dict[str, Any]:
    shards, units = gathered.shards, gathered.units
    card = shards.card
    return {
        "source": data,
        "split": {"val": "validation", "train": "training"}[shards.split],
        "digest": shards.digest,
        "images": len(units.groups),
        "image_size": shards.image_size,
        "unit": units.name,
        "units": len(units),
        "origin": {"name": card.source.name, "kind": card.source.kind},
        "crop": card.crop,
        "crop_rule": card.crop_rule,
        "stored_as": card.image_format,
        "compression_before": "not recorded: a card knows what it stores, not how its source was compressed",
        "upscaled": card.upscaled,
    }
