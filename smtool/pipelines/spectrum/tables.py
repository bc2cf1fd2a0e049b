"""The result of `smtool spectrum` as tables: for each estimator, the low-pass curve, decoders and health, and the verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

from smtool.report.tables import Table, interval

Result = Mapping[str, Any]
Entry = Mapping[str, Any]
_ROWS_SHOWN = (8, 10, 12, 14)
_TOPICS_SHOWN = ("flattening", "frequency-aligned")


def tables(result: Result) -> list[Table]:
    """As far as they were measured."""
    made = []
    if "physical" in result["images"]:
        made.append(_physical(result))
    if result["autoencoders"]:
        if "reference" in result["images"]:
            made.append(_reference(result))
        if any("psnr" in autoencoder["low_pass"] for autoencoder in result["autoencoders"]):
            made.append(_low_pass(result))
        made += [_decoders_and_health(result), _verdicts(result)]
    return made


def data_note(result: Result) -> str:
    """What was measured on, and what the intervals resample."""
    data = result["passport"]["data"]
    images = f"{data['images']} images"
    if data["unit"] == "photograph":
        images = f"{data['images']} crops of {data['units']} photographs"
    return f"{images} ({source_note(result)}), {data['image_size']} px; 95% intervals, jackknife over {data['unit']}s"


def source_note(result: Result) -> str:
    """The last name of the data, and which part of it."""
    data = result["passport"]["data"]
    return f"{data['source'].rstrip('/').split('/')[-1]}, {data['split']} split"


def headline(entries: Sequence[Entry]) -> Entry:
    """The reading that is drawn: sampled and normalized under PHYSICAL, sampled and raw under REFERENCE."""
    return next(entry for entry in entries if entry["headline"])


def _physical(result: Result) -> Table:
    slope = result["images"]["physical"]["slope"]
    rows = [("images", "", _exponent(slope), "", "", "")]
    notes = [data_note(result), f"power ~ f^-slope; fits: {_fitted(slope)} of images"]
    for autoencoder in result["autoencoders"]:
        for entry in autoencoder["physical"]:
            divergence, delta = entry["target"]["divergence_db"], entry["delta"]
            away = f"{divergence['value']:.1f} dB" if "value" in divergence else "-"
            worst = f"{delta['residual_db']:.1f} dB" if "value" in delta else "-"
            rows.append((*_names(autoencoder, entry), _exponent(entry["slope"]), _delta(delta), away, worst))
        notes += _remarks(autoencoder)
    if result["autoencoders"]:
        flattened = f"images flattened by f^{result['passport']['delta']:g}"
        notes.insert(1, f"off target: rms distance from the {flattened}, at the best gain; off line: the worst ring of the fit")
    return Table("", ("PHYSICAL", "latents", "slope", "delta", "off target", "off line"), tuple(rows), "\n".join(notes))


def _remarks(autoencoder: Entry) -> list[str]:
    """What a reader of this autoencoder's rows must know."""
    name, head = autoencoder["label"], headline(autoencoder["physical"])
    remarks = [f"{name}: normalized by {autoencoder['normalization']['source']}"]
    if autoencoder["deterministic"]:
        remarks.append(f"{name}: its encoder gives points, no posterior to sample")
    if "reason" in head["delta"]:
        return [*remarks, f"{name}: no fit: {head['delta']['reason']}"]
    remarks[0] += f"; fits: {_fitted(head['delta'])} of latents"
    if values := head["channel_deltas"].get("values"):
        remarks.append(f"{name}: delta of single channels {min(values):.2f} to {max(values):.2f}")
    if not head["delta"]["is_power_law"]:
        remarks.append(f"{name}: not a power law; delta summarises poorly")
    return remarks


def _reference(result: Result) -> Table:
    rows = []
    for autoencoder in result["autoencoders"]:
        for entry in autoencoder["reference"]:
            divergences = (interval(part["value"], part["half_width"], digits=3) for part in entry["divergence"].values())
            deltas = ("none" if part["value"] is None else f"{part['value']:.2f}" for part in entry["delta"].values())
            rows.append((*_names(autoencoder, entry), *divergences, *deltas))
    columns = ("REFERENCE", "latents", "KL", "KL matched", "delta", "matched")
    note = (
        f"KL (nats, without DC) of the images flattened by delta {result['passport']['delta']:g} against latents, as released "
        "and with their power matched; delta: where either is least (none: not inside [-1, 3])"
    )
    return Table("", columns, tuple(rows), note)


def _low_pass(result: Result) -> Table:
    rows: list[tuple[str, ...]] = []
    conventions: dict[str, list[str]] = {}
    notes = ["gap = PSNR(D(z), x) - PSNR(D(LP z), LP x) in dB when n of 15 anti-diagonals are removed; sampled posterior"]
    for autoencoder in result["autoencoders"]:
        scores = autoencoder["low_pass"]
        if "reason" in scores:
            notes.append(f"{autoencoder['label']}: {scores['reason']}")
            continue
        gap = scores["gap"]
        shown = (interval(gap["value"][n], gap["half_width"][n], digits=1) for n in _ROWS_SHOWN)
        rows.append((autoencoder["label"], f"{scores['psnr'][0]:.1f} dB", *shown))
        conventions.setdefault(f"{scores['images']} images; {scores['convention']}", []).append(autoencoder["label"])
    notes += [f"{', '.join(labels)}: {convention}" for convention, labels in conventions.items()]
    columns = ("LOW-PASS", "PSNR", *(f"gap n={n}" for n in _ROWS_SHOWN))
    return Table("", columns, tuple(rows), "\n".join(notes))


def _decoders_and_health(result: Result) -> Table:
    rows = []
    for autoencoder in result["autoencoders"]:
        transfer, health = autoencoder["transfer"], autoencoder["health"]
        rows.append((
            autoencoder["label"],
            *(_number(transfer, name) for name in ("kappa", "above", "down")),
            f"{_number(health['effective_rank'], 'entropy', digits=1)}/{autoencoder['latent_channels']}",
            _number(health["grid"].get("phase", health["grid"]), "excess"),
            *(_number(health["shift"], name) for name in ("reconstruction", "whole_cell", "latent")),
        ))
    columns = ("DECODER", "kappa", "above", "down", "rank", "grid", "shift", "cell", "latent")
    note = (
        "kappa: latent bands that answer in their own image band (1: all, 0: chance); above the latent's Nyquist, down: leaks; "
        "rank: effective, of all channels; grid: phase contrast beyond the inputs'; shift, cell, latent: errors when the image "
        "moves, as shares of the variance"
    )
    return Table("", columns, tuple(rows), note)


def _verdicts(result: Result) -> Table:
    """Whether latents are flattened and the decoder aligned, and every warning; the report's page has the whole verdict."""
    rows = [
        (f"{autoencoder['label']}: {found['sentence']}",)
        for autoencoder in result["autoencoders"]
        for found in autoencoder["verdict"]
        if found["tone"] == "warn" or found["topic"] in _TOPICS_SHOWN
    ]
    return Table("", ("VERDICT",), tuple(rows), "It diagnoses and does not rank; to rank autoencoders: smtool race")


def _number(part: Entry, name: str, *, digits: int = 2) -> str:
    return "-" if part.get(name) is None else f"{part[name]:.{digits}f}"


def _names(autoencoder: Entry, entry: Entry) -> tuple[str, str]:
    """The autoencoder's name stands at its headline only."""
    scale = {"normalized": "norm.", "raw": "raw"}[entry["latents"]]
    posterior = {"deterministic": "point"}.get(entry["posterior"], entry["posterior"])
    return autoencoder["label"] if entry["headline"] else "", f"{posterior}, {scale}"


def _exponent(slope: Entry) -> str:
    if "reason" in slope:
        return "-"
    return "> 4.5" if slope["steeper_than_4_5"] else interval(slope["exponent"], slope["half_width"])


def _delta(delta: Entry) -> str:
    return interval(delta["value"], delta["half_width"]) if "value" in delta else "-"


def _fitted(fit: Entry) -> str:
    if "reason" in fit:
        return "none"
    low, high = fit["fit_range"]
    return f"{low:.3g} to {high:.3g} cycles per pixel"
