"""What is wrong with latents or decoder apart from their spectrum. Limits lie between controls of the definition sheet."""

from collections.abc import Callable, Mapping
from typing import Any

from smtool.pipelines.spectrum.findings import Tone, finding

RANK_SHARE = 0.5
"""Half of the channels duplicated or dead leave an effective rank of half their number."""
RANK_FULL = 0.75
"""White channels have all of it; below three quarters it is told, but not praised."""
GRID_TEMPLATE = 0.03
"""Photographs have 0.009; a pattern of 1 % of their variance 0.072 to 0.075: halfway on a ratio scale."""
GRID_PHASE = 0.1
"""Chance gives 0.03 to 0.06, a plain trained autoencoder 0.14, bilinear upsampling 0.49, nearest 1."""
SHIFT_RECONSTRUCTION = 0.05
"""An ideal crop has 0.003, a trained autoencoder 0.013, bilinear 0.016; nearest 0.14 and strided subsampling 0.61 are broken."""
SHIFT_CELLS = 0.05
"""Convolutions have 0; stretching frequencies 1.17."""
SHIFT_LATENT = 0.2
"""An ideal crop has 0.008 and bilinear 0.06; a trained autoencoder 0.52 and space-to-depth 0.55 alias."""

Entry = Mapping[str, Any]
Findings = list[dict[str, Any]]


def health_findings(autoencoder: Entry) -> Findings:
    """One sentence for each check that was made, good or bad."""
    health = autoencoder.get("health") or {}
    measured = {name: part for name in _CHECKS if (part := health.get(name)) and "reason" not in part}
    return [_CHECKS[name](part) for name, part in measured.items()]


def _channels(channels: list[Entry]) -> dict[str, Any]:
    dead = [index + 1 for index, channel in enumerate(channels) if channel["dead"]]
    listed = ", ".join(map(str, dead[:12])) + (" ..." if len(dead) > 12 else "")
    said = f"{len(dead)} of {len(channels)} channels are dead (they hardly vary): {listed}."
    if not dead:
        said = f"None of {len(channels)} channels is dead."
    return finding("channels", "warn" if dead else "good", said, dead=float(len(dead)), channels=float(len(channels)))


def _rank(rank: Entry) -> dict[str, Any]:
    """By the correlations too: one loud channel hides the others in the covariance, dead ones hide in the correlations."""
    channels, entropy, correlation = rank["num_channels"], rank["entropy"], rank["entropy_correlation"]
    is_low = entropy <= RANK_SHARE * channels
    said = f"{channels} channels span {entropy:.1f} directions, {correlation:.1f} by correlations"
    if is_low:
        loud = correlation > RANK_SHARE * channels
        said += ": a few are much louder than the rest, or dead" if loud else ": they repeat one another"
    numbers = {"entropy": entropy, "entropy_correlation": correlation, "channels": float(channels)}
    tone: Tone = "good" if entropy > RANK_FULL * channels else "note"
    return finding("rank", "warn" if is_low else tone, f"{said}.", **numbers)


def _grid(grid: Entry) -> dict[str, Any]:
    """Always the excess over the inputs: photographs, too, have a grid (JPEG's)."""
    template, phase = grid["template"]["excess"] or 0.0, grid["phase"]["excess"] or 0.0
    is_seen = template > GRID_TEMPLATE or phase > GRID_PHASE
    said = "A grid in reconstructions" if is_seen else "No grid in reconstructions"
    beyond = f"template share {template:+z.3f}, phase contrast {phase:+z.2f}"
    sentence = f"{said}: period {grid['period']} px, beyond the inputs' own by {beyond}."
    return finding("grid", "warn" if is_seen else "good", sentence, template_excess=template, phase_excess=phase)


def _shift(shift: Entry) -> dict[str, Any]:
    """All three are needed: the first alone calls space-to-depth perfect."""
    rules = (
        ("reconstruction", SHIFT_RECONSTRUCTION, "reconstructions change when the image moves by part of a cell"),
        ("whole_cell", SHIFT_CELLS, "the image does not follow when latents move by one cell"),
        ("latent", SHIFT_LATENT, "latents alias when the image moves by part of a cell"),
    )
    numbers = {name: shift[name] for name, _, _ in rules if shift.get(name) is not None}
    broken = [f"{words} ({shift[name]:.2f} of the variance)" for name, limit, words in rules if numbers.get(name, 0) > limit]
    if broken:
        return finding("shifts", "warn", f"Not shift-equivariant: {'; '.join(broken)}.", **numbers)
    errors = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in numbers.items())
    return finding("shifts", "good", f"Moves with the image: errors as shares of the variance are {errors}.", **numbers)


def _fp16(fp16: Entry) -> dict[str, Any]:
    largest = fp16["largest_activation"]
    if fp16["overflows"]:
        reached = "is not finite even in fp32" if largest is None else f"reaches {largest:.3g}, more than 65504,"
        said = f"Overflows fp16: an activation {reached} at {fp16['layer']}; run it in bf16 or fp32."
    else:
        said = f"Fits fp16: the largest activation is {largest:.3g} of at most 65504 (at {fp16['layer']})."
    return finding("fp16", "warn" if fp16["overflows"] else "good", said, largest_activation=largest)


_CHECKS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "channels": _channels, "effective_rank": _rank, "grid": _grid, "shift": _shift, "fp16": _fp16,
}
