"""The verdict of a report: plain sentences about one autoencoder, each with the numbers it rests on.

It diagnoses and does not rank. Every rule reads the result alone, so that an old spectrum.json is judged again alike. Limits are
named constants beside the rules (verdict_*.py); where the definition sheet measured controls, a limit lies between two of them.
"""

from collections.abc import Mapping
from typing import Any

from smtool.pipelines.spectrum.verdict_decoder import decoder_findings
from smtool.pipelines.spectrum.verdict_health import health_findings
from smtool.pipelines.spectrum.verdict_spectrum import flattening_findings, lens_findings

SCOPE = (
    "This report diagnoses; it does not rank. No spectrum alone tells which of two unrelated autoencoders a diffusion model "
    "will learn better: over 22 published autoencoders, the rank correlation with the FID of what one transformer generates is "
    "-0.01 for a purely spectral score (energy above 0.05 cycles per pixel), and 0.84 for iFID, which decodes interpolated "
    "latents. For ranking, train on them, with smtool race."
)


def verdict(autoencoder: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sentences about one autoencoder of a result, the most important first; what was not measured is not mentioned.

    Each is {"topic", "tone": "good" | "warn" | "note", "sentence", "numbers": {name: value or None}}.
    """
    return [
        *flattening_findings(autoencoder),
        *decoder_findings(autoencoder),
        *lens_findings(autoencoder),
        *health_findings(autoencoder),
    ]
