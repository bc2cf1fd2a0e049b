"""Table of the predictors' values: a row for each predictor, a column for each autoencoder of a race."""

from smtool.commands.race.predictor_correlations import OF_EQUAL_NUMBERS, TITLES, title
from smtool.commands.race.result import Point, Result
from smtool.report.tables import Table


def values_table(result: Result) -> Table:
    """Predictors of all autoencoders, as means over seeds; a dash for what could not be measured for every seed."""
    points = result.points
    names = {name for point in points.values() for name in point.predictors}
    numbers = {point.num_latents for point in points.values()}
    rows = tuple(
        (title(name, numbers), *(_cell(point, name, unequal=len(numbers) > 1) for point in points.values()))
        for name in [*(name for name in TITLES if name in names), *sorted(names - set(TITLES))]
    )
    note = "Means over seeds. A dash: not measured, such as a linear probe of images without classes, or LDS on a small grid."
    if len(numbers) > 1:
        note += " VIV depends on the number N of latents: values of unequal N are not comparable, and have no rank correlation."
    return Table("Predictors", ("predictor", *points), rows, note)


def _cell(point: Point, name: str, *, unequal: bool) -> str:
    if name not in point.predictors:
        return "-"
    value = f"{point.predictors[name]:.3g}"
    return f"{value} (N = {point.num_latents:,})" if unequal and name in OF_EQUAL_NUMBERS else value
