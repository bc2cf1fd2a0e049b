"""The parts of a report's result: what was measured of the images, and of every autoencoder."""

from collections.abc import Mapping, Sequence
from typing import Any

from smtool.pipelines.spectrum.lens import lens
from smtool.pipelines.spectrum.measure import Pass
from smtool.pipelines.spectrum.scores_physical import physical_of_images, physical_of_latents
from smtool.pipelines.spectrum.scores_reference import reference_of_images, reference_of_latents
from smtool.pipelines.spectrum.sections import Sections
from smtool.pipelines.spectrum.subjects import Subject
from smtool.pipelines.spectrum.tables import headline
from smtool.pipelines.spectrum.verdict import verdict
from smtool.spectrum import PHYSICAL, REFERENCE

_MEASURED = "the std of each channel over these images (it has no LatentStats)"


def images_part(gathered: Pass, delta: float) -> dict[str, Any]:
    part: dict[str, Any] = {}
    if gathered.images.measures(PHYSICAL):
        part["physical"] = physical_of_images(gathered.images, gathered.units)
    if gathered.images.measures(REFERENCE.curve):
        sizes = gathered.images.sizes
        part["reference"] = [reference_of_images(gathered.images, size, gathered.units, delta=delta) for size in sizes]
    return part


def autoencoders_part(
    gathered: Pass, found: Mapping[str, Sections], delta: float, *, reference: str
) -> list[dict[str, Any]]:
    """One entry each; the lens and the verdict read the others of an entry."""
    autoencoders = [_autoencoder_part(subject, gathered, found[subject.label], delta) for subject in gathered.subjects]
    _add_lenses(autoencoders, reference)
    for autoencoder in autoencoders:
        autoencoder["verdict"] = verdict(autoencoder)
    return autoencoders


def _autoencoder_part(subject: Subject, gathered: Pass, sections: Sections, delta: float) -> dict[str, Any]:
    rings, size, codec = subject.rings, gathered.size(subject), subject.codec
    stats = rings.stats(gathered.shards.digest)
    measured = (gathered.images, rings, stats.std, size, gathered.units)
    return {
        "label": subject.label,
        "path": codec.source,
        "digest": codec.digest,
        "architecture": codec.architecture,
        "deterministic": codec.deterministic,
        "can_decode": codec.can_decode,
        "downsample": codec.downsample,
        "latent_channels": codec.latent_channels,
        "latent_size": list(size),
        "normalization": {"source": "its LatentStats" if codec.stats else _MEASURED, **stats.to_metadata()},
        "physical": physical_of_latents(*measured, delta=delta) if gathered.images.measures(PHYSICAL) else [],
        "reference": reference_of_latents(*measured, delta=delta) if gathered.images.measures(REFERENCE.curve) else [],
        **sections.parts,
    }


def _add_lenses(autoencoders: Sequence[dict[str, Any]], reference: str) -> None:
    """Every latent's lens, with the time shift against the one labelled `reference`."""
    heads = {autoencoder["label"]: headline(autoencoder["physical"]) for autoencoder in autoencoders if autoencoder["physical"]}
    for autoencoder in autoencoders:
        label = autoencoder["label"]
        if label not in heads:
            autoencoder["lens"] = {"reason": "it is read from PHYSICAL spectra, which were not asked for"}
            continue
        autoencoder["lens"] = lens(heads[label], None if label == reference else (reference, heads[reference]))
