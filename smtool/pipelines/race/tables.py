"""The tables of a race: who stands where, what was known before, what it cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from smtool.pipelines.race.standing import DISTANCES, mean_over_seeds
from smtool.report.console import Console
from smtool.report.tables import Table, interval

H100_HOURS = 24.0
"""What the usual answer costs for each autoencoder: a transformer of 100,000 steps on 8 GPUs (LightningDiT, issue 74)."""
STAGES = ("train-ae", "encode", "train-dit", "score", "predict")
STAGE_TITLES = ("autoencoder", "latents", "transformer", "scores", "predictors")


def show(result: Mapping[str, Any], console: Console) -> None:
    """The table, and what can be told."""
    console.print(ranking_table(result))
    for sentence in told(result):
        console.print(sentence)
    for features in result["forecasts"]:
        console.print(forecast_table(result, features))


def told(result: Mapping[str, Any]) -> list[str]:
    """Who beats whom by more than seed noise, a sentence for each winner and count of seeds, and how many pairs do not."""
    standing = result["standings"][result["judge"]]["generation"]
    pairs, means = standing["pairs"], standing["racers"]
    beaten: dict[tuple[str, int, int], list[str]] = {}
    for pair in pairs:
        if pair["told"]:
            beaten.setdefault((pair["better"], pair["wins"], pair["seeds"]), []).append(pair["worse"])
    order = sorted(means, key=lambda name: means[name]["value"])
    sentences = [
        f"{better} beats {_listed(sorted(worse, key=order.index))} in {wins} of {seeds} seeds."
        for (better, wins, seeds), worse in sorted(beaten.items(), key=lambda item: order.index(item[0][0]))
    ]
    if rest := sum(not pair["told"] for pair in pairs):
        sentences.append(f"{rest} of {len(pairs)} pairs cannot be told apart.")
    return sentences


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def pair_table(result: Mapping[str, Any]) -> Table:
    """Every pair by the judge that ranks: differences of generation distance and of gap, paired by seed."""
    standing = result["standings"][result["judge"]]
    pairs = standing["generation"]["pairs"]
    gaps = {frozenset((pair["better"], pair["worse"])): pair for pair in standing["gap"]["pairs"]}
    digits = _digits({"value": pair["difference"], "half_width": pair["half_width"]} for pair in pairs)
    rows = []
    for pair in pairs:
        gap = gaps[frozenset((pair["better"], pair["worse"]))]
        difference = gap["difference"] if gap["better"] == pair["better"] else -gap["difference"]
        rows.append((
            f"{pair['worse']} - {pair['better']}",
            interval(pair["difference"], pair["half_width"], digits=digits),
            f"{pair['wins']} of {pair['seeds']}",
            "told" if pair["told"] else "cannot tell",
            interval(difference, gap["half_width"], digits=digits),
            "told" if gap["told"] else "cannot tell",
        ))
    return Table(
        "Differences, paired by seed",
        ("pair", "generation ± 95 %", "seeds", "", "gap ± 95 %", ""),
        tuple(rows),
        "Each pair is looked at alone: one in twenty without any difference is told by chance.",
    )


def forecast_table(result: Mapping[str, Any], features: str) -> Table:
    """A row for each predictor: how it ranks the racers by generation distance and by gap, and the published autoencoders."""
    found, rows = result["forecasts"][features], []
    for entry in found["predictors"].values():
        both = [cell for what in ("generation", "gap") for cell in (_rho(entry[what]), chance(entry[what]))]
        rows.append((entry["title"], *both, _rho(entry["published"]) if entry["published"] else "-"))
    agree = [_correlation(found["seeds_agree"][what]) for what in ("generation", "gap")]
    rows.append(("one seed, for the mean of the others", agree[0], "", agree[1], "", "-"))
    count = len(result["points"])
    return Table(
        f"Rank correlation over {count} autoencoders with {result['cells'][0]['distances'][features]['name']}",
        ("predictor", "generation", "chance", "gap", "chance", "published"),
        tuple(rows),
        "Spearman's correlation over autoencoders (each the mean of its seeds), from 8 of them on with its 95 % bootstrap "
        "interval; chance: share of random orders at least as strong, either way, for one predictor looked at alone. Positive: a "
        "larger value goes with worse samples. Last row: how well one seed of the race itself ranks them, which no predictor can "
        "beat by much. published: the same statistic over up to 22 public autoencoders and SiT-XL's FID (arXiv 2603.05630).",
    )


def chance(entry: Mapping[str, Any]) -> str:
    """How often a random order does as well, as far as the number of orders tried can tell."""
    return "< 0.01" if entry["chance"] < 0.005 else f"{entry['chance']:.2f}"


def cost_table(result: Mapping[str, Any]) -> Table:
    """What each racer cost: seconds of wall time and of cores, by stage, all seeds together; shared autoencoders count once."""
    costs: Mapping[str, Mapping[str, tuple[float, float]]] = result["costs"]
    counted: set[str] = set()
    rows = []
    for racer in result["racers"]:
        cells = [f"{racer}-seed{seed}" for seed in result["seeds"]]
        keys = [key for key in [*(result["autoencoders"].get(cell, "") for cell in cells), *cells] if key not in counted]
        keys = list(dict.fromkeys(keys))
        counted |= set(keys)
        stages = [sum(costs.get(key, {}).get(stage, (0.0, 0.0))[0] for key in keys) for stage in STAGES]
        cores = sum(pair[1] for key in keys for pair in costs.get(key, {}).values())
        share = f"{sum(stages) / (H100_HOURS * 3600 * len(result['seeds'])):.2%}"
        rows.append((racer, *(f"{seconds:,.0f}" for seconds in stages), f"{sum(stages):,.0f}", f"{cores:,.0f}", share))
    return Table(
        "Seconds, all seeds together",
        ("racer", *STAGE_TITLES, "in all", "core-seconds", "of 24 H100-hours"),
        tuple(rows),
        "An autoencoder that several racers share is counted once, for the first. The last column is the time for one seed, of "
        "whatever this race ran on, over 24 hours of one H100: a comparison of waiting, not of machines.",
    )


def _rho(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return "-"
    bounds = "" if entry["low"] is None else f"\N{NO-BREAK SPACE}[{entry['low']:+.2f},\N{NO-BREAK SPACE}{entry['high']:+.2f}]"
    return f"{_correlation(entry['value'])}{bounds}"


def _correlation(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def ranking_table(result: Mapping[str, Any], judge: str | None = None) -> Table:
    """A row for each racer, the best first; broken ones last. judge: of several extractors, by which; default the first."""
    judge = judge or str(result["judge"])
    standing = result["standings"][judge]
    generation = standing["generation"]["racers"]
    digits = {what: _digits(standing[what]["racers"].values()) for what in DISTANCES}
    rows = []
    for name in sorted(generation, key=lambda name: generation[name]["value"]):
        cells = [cell for cell in result["cells"] if cell["racer"] == name]
        distances = [_with_interval(standing[what]["racers"][name], digits[what]) for what in DISTANCES]
        psnr = mean_over_seeds({cell["seed"]: cell["psnr"]["value"] for cell in cells})
        learnt = fmean(fmean(cell["losses"]["learnt"]) for cell in cells)
        rows.append(
            (generation[name]["place"], name, *distances, _with_interval(psnr, 2), f"{100 * learnt:.0f} %", str(len(cells)))
        )
    for name in result["racers"]:
        if name not in generation:
            rows.append(("-", name, "broke", "", "", "", "", "0"))
    title = next(iter(result["cells"]))["distances"][judge]["name"] if result["cells"] else judge
    return Table(
        f"Race at step {result['step']:,} of {result['steps']:,}, by {title}",
        ("place", "racer", "generation", "reconstruction", "gap", "PSNR, dB", "learnt", "seeds"),
        tuple(rows),
        _note(result),
    )


def _digits(entries: Iterable[Mapping[str, Any]]) -> int:
    """Decimals for a column: two significant ones of the smallest half width, or three of the smallest value without any."""
    entries = list(entries)
    widths = [entry["half_width"] for entry in entries if entry["half_width"]]
    size, significant = (min(widths), 2) if widths else (min((abs(entry["value"]) for entry in entries), default=1.0), 3)
    return min(6, max(0, significant - 1 - math.floor(math.log10(size)))) if size else 2


def _with_interval(entry: Mapping[str, Any], digits: int) -> str:
    return interval(entry["value"], entry["half_width"], digits=digits)


def _note(result: Mapping[str, Any]) -> str:
    lines = [
        f"Mean over seeds ± 95 % (Student's t); {result['tokens']} tokens for all. Place: as far as seeds, paired, can tell.",
        "Generation, reconstruction: distances to the same training images, of equally many images; gap: their difference.",
        "Learnt: of what the spectrum alone lets a network predict, mean over bands; above 100 %: ties between frequencies too.",
    ]
    lines += [f"{key} broke: {error['message']}" for key, error in result["broken"].items()]
    return "\n".join(lines)
