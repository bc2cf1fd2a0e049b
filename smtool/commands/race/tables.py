"""The tables of a race: how racers rank, what predictors would have said before, what the race cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from smtool.commands.race.ranking import mean_over_seeds
from smtool.commands.race.result import Correlation, RaceResult, Result, SeedMean, Spent
from smtool.commands.race.schedule import STAGES, Stage
from smtool.report.console import Console
from smtool.report.tables import Table, interval

H100_HOURS = 24.0
"""What the usual answer costs for each autoencoder: a transformer of 100,000 steps on 8 GPUs (LightningDiT, issue 74)."""
_TITLES: Mapping[Stage, str] = {
    "train-ae": "autoencoder", "encode": "latents", "train-dit": "transformer", "score": "scores", "predict": "predictors"
}  # fmt: skip


def show(result: Result, console: Console) -> None:
    """Print the ranking, what can be told, and how predictors rank."""
    console.print(ranking_table(result))
    for sentence in told(result):
        console.print(sentence)
    for features in result.predictor_correlations:
        console.print(predictor_table(result, features))


def told(result: Result) -> list[str]:
    """Who beats whom by more than seed noise, a sentence for each winner and count of seeds, and how many pairs do not."""
    ranking = result.rankings[result.judge].generation
    beaten: dict[tuple[str, int, int], list[str]] = {}
    for pair in ranking.pairs:
        if pair.told:
            beaten.setdefault((pair.better, pair.wins, pair.seeds), []).append(pair.worse)
    order = result.by_generation()
    sentences = [
        f"{better} beats {_listed(sorted(worse, key=order.index))} in {wins} of {seeds} seeds."
        for (better, wins, seeds), worse in sorted(beaten.items(), key=lambda item: order.index(item[0][0]))
    ]
    if rest := sum(not pair.told for pair in ranking.pairs):
        sentences.append(f"{rest} of {len(ranking.pairs)} pairs cannot be told apart.")
    return sentences


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def ranking_table(result: Result, features: str | None = None) -> Table:
    """A row for each racer, the best first; broken ones last. features: the extractor to rank by; default the judge."""
    features = features or result.judge
    rankings = result.rankings[features]
    columns = [rankings.generation.racers, rankings.reconstruction.racers, rankings.gap.racers]
    digits = [_digits((mean.value, mean.half_width) for mean in means.values()) for means in columns]
    rows = []
    for name in result.by_generation(features):
        trials = result.trials_of(name)
        distances = [_with_interval(means[name], number) for means, number in zip(columns, digits, strict=True)]
        psnr = mean_over_seeds({trial.seed: trial.psnr.value for trial in trials})
        learnt = fmean(fmean(trial.losses.learnt) for trial in trials)
        place = rankings.generation.racers[name].place
        rows.append((place, name, *distances, _with_interval(psnr, 2), f"{100 * learnt:.0f} %", str(len(trials))))
    for name in result.racers:
        if name not in rankings.generation.racers:
            rows.append(("-", name, "broke", "", "", "", "", "0"))
    title = result.trials[0].distances[features].name if result.trials else features
    return Table(
        f"Race at step {result.step:,} of {result.steps:,}, by {title}",
        ("place", "racer", "generation", "reconstruction", "gap", "PSNR, dB", "learnt", "seeds"),
        tuple(rows),
        _note(result),
    )


def pair_table(result: Result) -> Table:
    """Every pair by the judge that ranks: differences of generation distance and of gap, paired by seed."""
    rankings = result.rankings[result.judge]
    gaps = {frozenset((pair.better, pair.worse)): pair for pair in rankings.gap.pairs}
    digits = _digits((pair.difference, pair.half_width) for pair in rankings.generation.pairs)
    rows = []
    for pair in rankings.generation.pairs:
        gap = gaps[frozenset((pair.better, pair.worse))]
        difference = gap.difference if gap.better == pair.better else -gap.difference
        rows.append((
            f"{pair.worse} - {pair.better}",
            interval(pair.difference, pair.half_width, digits=digits),
            f"{pair.wins} of {pair.seeds}",
            "told" if pair.told else "cannot tell",
            interval(difference, gap.half_width, digits=digits),
            "told" if gap.told else "cannot tell",
        ))
    return Table(
        "Differences, paired by seed",
        ("pair", "generation ± 95 %", "seeds", "", "gap ± 95 %", ""),
        tuple(rows),
        "Each pair is looked at alone: one in twenty without any difference is told by chance.",
    )


def predictor_table(result: Result, features: str) -> Table:
    """A row for each predictor: how it ranks the racers by generation distance and by gap, and the published autoencoders."""
    found, rows = result.predictor_correlations[features], []
    for entry in found.predictors.values():
        both = [cell for one in (entry.generation, entry.gap) for cell in (_with_bounds(one), chance(one))]
        rows.append((entry.title, *both, _with_bounds(entry.published) if entry.published else "-"))
    agree = found.seeds_agree
    rows.append(("one seed, for the mean of the others", _signed(agree.generation), "", _signed(agree.gap), "", "-"))
    return Table(
        f"Rank correlation over {len(result.points)} autoencoders with {result.trials[0].distances[features].name}",
        ("predictor", "generation", "chance", "gap", "chance", "published"),
        tuple(rows),
        "Spearman's correlation over autoencoders (each the mean of its seeds), from 8 of them on with its 95 % bootstrap "
        "interval; chance: share of random orders at least as strong, either way, for one predictor looked at alone. Positive: a "
        "larger value goes with worse samples. Last row: how well one seed of the race itself ranks them, which no predictor can "
        "beat by much. published: the same statistic over up to 22 public autoencoders and SiT-XL's FID (arXiv 2603.05630).",
    )


def chance(found: Correlation) -> str:
    """How often a random order does as well, as far as the number of orders tried can tell."""
    return "< 0.01" if found.chance < 0.005 else f"{found.chance:.2f}"


def cost_table(result: RaceResult) -> Table:
    """What each racer cost: seconds of wall time and of cores, by stage, all seeds together; shared autoencoders count once."""
    counted: set[str] = set()
    rows = []
    for racer in result.racers:
        trials = [f"{racer}-seed{seed}" for seed in result.seeds]
        keys = dict.fromkeys([*(result.autoencoders.get(trial, "") for trial in trials), *trials])
        spent = [result.costs.get(key, {}) for key in keys if key not in counted]
        counted |= set(keys)
        stages = [sum(stages.get(stage, Spent(0.0, 0.0)).seconds for stages in spent) for stage in STAGES]
        cores = sum(one.core_seconds for stages in spent for one in stages.values())
        fraction = sum(stages) / (H100_HOURS * 3600 * len(result.seeds))
        rows.append((racer, *(f"{seconds:,.0f}" for seconds in (*stages, sum(stages), cores)), f"{fraction:.2%}"))
    return Table(
        "Seconds, all seeds together",
        ("racer", *(_TITLES[stage] for stage in STAGES), "in all", "core-seconds", "of 24 H100-hours"),
        tuple(rows),
        "An autoencoder that several racers share is counted once, for the first. The last column is the time for one seed, of "
        "whatever this race ran on, over 24 hours of one H100: a comparison of waiting, not of machines.",
    )


def _with_bounds(found: Correlation) -> str:
    if found.value is None or found.low is None or found.high is None:
        return _signed(found.value)
    return f"{_signed(found.value)}\N{NO-BREAK SPACE}[{found.low:+.2f},\N{NO-BREAK SPACE}{found.high:+.2f}]"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _digits(entries: Iterable[tuple[float, float | None]]) -> int:
    """Decimals for a column of (value, half width).

    Two significant ones of the smallest half width, or three of the smallest value without any.
    """
    entries = list(entries)
    widths = [half_width for _, half_width in entries if half_width]
    size, significant = (min(widths), 2) if widths else (min((abs(value) for value, _ in entries), default=1.0), 3)
    return min(6, max(0, significant - 1 - math.floor(math.log10(size)))) if size else 2


def _with_interval(mean: SeedMean, digits: int) -> str:
    return interval(mean.value, mean.half_width, digits=digits)


def _note(result: Result) -> str:
    lines = [
        f"Mean over seeds ± 95 % (Student's t); {result.tokens} tokens for all. Place: as far as seeds, paired, can tell.",
        "Generation, reconstruction: distances to the same training images, of equally many images; gap: their difference.",
        "Learnt: of what the spectrum alone lets a network predict, mean over bands; above 100 %: ties between frequencies too.",
    ]
    lines += [f"{key} broke: {error.message}" for key, error in result.broken.items()]
    return "\n".join(lines)
