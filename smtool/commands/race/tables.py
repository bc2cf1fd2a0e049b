"""Tables of a race: ranking, pairwise differences, correlations of predictors, cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from smtool.commands.race.ranking import mean_over_seeds, ranking_by
from smtool.commands.race.result import Correlation, RaceResult, Result, SeedMean, Spent
from smtool.commands.race.schedule import STAGES, Stage
from smtool.commands.race.trial import METRICS
from smtool.report.console import Console
from smtool.report.tables import Table, interval

H100_HOURS = 24.0
"""H100-hours of a full-size training for one autoencoder: 100,000 steps on 8 GPUs (LightningDiT, issue 74)."""
_TITLES: Mapping[Stage, str] = {
    "train-ae": "autoencoder", "encode": "latents", "train-dit": "transformer", "score": "scores", "predict": "predictors"
}  # fmt: skip


def show(result: Result, console: Console) -> None:
    """Print the ranking, the significant differences, and the correlations of predictors."""
    console.print(ranking_table(result))
    for sentence in told(result):
        console.print(sentence)
    for features in result.predictor_correlations:
        console.print(predictor_table(result, features))


def told(result: Result) -> list[str]:
    """Sentences on the significant differences, one for each winner and number of seeds, and the number of other pairs."""
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
        sentences.append(f"{rest} of {len(ranking.pairs)} pairs do not differ significantly.")
    return sentences


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def ranking_table(result: Result, features: str | None = None) -> Table:
    """A row for each racer, the best first, failed ones last. features: the extractor to rank by; default: the judge."""
    features = features or result.judge
    rankings = result.rankings[features]
    columns = [rankings.generation.racers, rankings.reconstruction.racers, rankings.gap.racers]
    digits = [_digits((mean.value, mean.half_width) for mean in means.values()) for means in columns]
    rows = []
    for name in result.by_generation(features):
        trials = result.trials_of(name)
        distances = [mean_cell(means[name], number) for means, number in zip(columns, digits, strict=True)]
        psnr = mean_over_seeds({trial.seed: trial.psnr.value for trial in trials})
        learnt = fmean(fmean(trial.losses.learnt) for trial in trials)
        place = rankings.generation.racers[name].place
        rows.append((place, name, *distances, mean_cell(psnr, 2), f"{100 * learnt:.0f} %", str(len(trials))))
    for name in result.racers:
        if name not in rankings.generation.racers:
            rows.append(("-", name, "failed", "", "", "", "", "0"))
    title = result.trials[0].distances[features].name if result.trials else features
    return Table(
        f"Race at step {result.step:,} of {result.steps:,}, by {title}",
        ("place", "racer", "generation", "reconstruction", "gap", "PSNR, dB", "learnt", "seeds"),
        tuple(rows),
        _note(result),
    )


def metrics_table(result: Result) -> Table | None:
    """Generation by every metric and extractor, with places; None for a race of one metric and extractor."""
    columns = {}
    for features in result.rankings:
        for metric in METRICS:
            found = ranking_by(result.racers, result.trials, features, metric)
            first = result.trials[0].distances[features].by(metric)
            if found is not None and first is not None:
                columns[first.name] = found.racers
    if len(columns) < 2:
        return None
    digits = [_digits((mean.value, mean.half_width) for mean in means.values()) for means in columns.values()]
    rows = tuple(
        (name, *(f"{mean_cell(means[name], number)} ({means[name].place})"
                 for means, number in zip(columns.values(), digits, strict=True)))
        for name in result.by_generation()
    )  # fmt: skip
    title = "The same samples by every distance"
    return Table(title, ("racer", *columns), rows, f"Generation ± 95 % over seeds, place in brackets. Judge: {result.judged_by}.")


def pair_table(result: Result) -> Table:
    """A row for each pair of racers: differences of generation distance and of gap by the judge, paired by seed."""
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
            "yes" if pair.told else "no",
            interval(difference, gap.half_width, digits=digits),
            "yes" if gap.told else "no",
        ))
    return Table(
        "Differences, paired by seed",
        ("pair", "generation ± 95 %", "seeds", "significant", "gap ± 95 %", "significant"),
        tuple(rows),
        "Not corrected for multiple comparisons: of twenty pairs without any difference, about one is significant by chance.",
    )


def predictor_table(result: Result, features: str) -> Table:
    """A row for each predictor: its rank correlation with generation distance and gap, and over published autoencoders."""
    found, rows = result.predictor_correlations[features], []
    for entry in found.predictors.values():
        both = [cell for one in (entry.generation, entry.gap) for cell in (_with_bounds(one), chance(one))]
        rows.append((entry.title, *both, _with_bounds(entry.published) if entry.published else "-"))
    agree = found.seeds_agree
    rows.append(("one seed with the mean of the others", _signed(agree.generation), "", _signed(agree.gap), "", "-"))
    return Table(
        f"Rank correlation over {len(result.points)} autoencoders with {result.trials[0].distances[features].name}",
        ("predictor", "generation", "p", "gap", "p", "published"),
        tuple(rows),
        "Spearman's correlation over autoencoders (means over seeds); with 8 or more of them, with its 95 % bootstrap interval. "
        "Positive: larger values go with worse samples. p: two-sided p-value by permutation, not corrected for multiple "
        "predictors. Last row: correlation of one seed of the race with the mean of the others; no predictor can exceed it by "
        "much. published: the same correlation with SiT-XL's FID, over up to 22 public autoencoders (arXiv 2603.05630).",
    )


def chance(found: Correlation) -> str:
    """The p-value as text; values below 0.005 are shown as < 0.01."""
    return "< 0.01" if found.chance < 0.005 else f"{found.chance:.2f}"


def cost_table(result: RaceResult) -> Table:
    """A row for each racer: seconds of wall time by stage and of all cores, over all seeds. Shared autoencoders count once."""
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
        "Time in seconds, all seeds together",
        ("racer", *(_TITLES[stage] for stage in STAGES), "total", "core-seconds", "of 24 H100-hours"),
        tuple(rows),
        "An autoencoder that several racers share is counted once, for the first of them. Last column: time for one seed on this "
        "machine, as a fraction of 24 hours on one H100. It compares waiting times, not machines.",
    )


def _with_bounds(found: Correlation) -> str:
    if found.value is None or found.low is None or found.high is None:
        return _signed(found.value)
    return f"{_signed(found.value)}\N{NO-BREAK SPACE}[{found.low:+.2f},\N{NO-BREAK SPACE}{found.high:+.2f}]"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _digits(entries: Iterable[tuple[float, float | None]]) -> int:
    """Number of decimals for a column of (value, half-width).

    Gives two significant digits of the smallest half-width; without half-widths, three of the smallest value.
    """
    entries = list(entries)
    widths = [half_width for _, half_width in entries if half_width]
    size, significant = (min(widths), 2) if widths else (min((abs(value) for value, _ in entries), default=1.0), 3)
    return min(6, max(0, significant - 1 - math.floor(math.log10(size)))) if size else 2


def mean_cell(mean: SeedMean, digits: int) -> str:
    """A mean with its interval. An interval of exactly 0 is not shown: all seeds share one autoencoder."""
    return interval(mean.value, mean.half_width or None, digits=digits)


def _note(result: Result) -> str:
    lines = [
        f"Mean over seeds ± 95 % (Student's t); {result.tokens} tokens for all. Place: a range if differences are insignificant.",
        "Generation, reconstruction: distances of equally many images to the same training images; gap: their difference.",
        "Learnt: 0 % is the initial loss, 100 % the loss of an optimal network that uses only the spectrum; mean over bands.",
    ]
    lines += [f"{key} failed: {error.message}" for key, error in result.broken.items()]
    return "\n".join(lines)
