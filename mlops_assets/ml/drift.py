"""The rule for drift alerts: a distance that chance does not explain and that is large enough to matter.

*Chance*: a threshold from the reference and the sizes of both samples, the quantile of the distance when nothing changed. For the
Jensen-Shannon distance, the population stability index and the chi-square statistic it is that of the chi-square distribution that all three
approach (Menendez et al., "The Jensen-Shannon divergence", 1997; Yurdakul, "Statistical properties of population stability index", 2018). For
the Wasserstein distance it is a bound: the distance is the integral of the absolute value of a Brownian bridge over the reference, which exceeds
its mean by t standard deviations of the reference with probability exp(-t^2 / 2) at most (Borell's inequality). The probability of a false alarm
is divided among all cells of a window (Bonferroni), so that a window of many features and slices alerts no more often than one of few.

*Usual differences*: rows of one week share their weather, so that two weeks differ by more than independent rows do. Where the reference
period has enough windows, the threshold holds what is usual between them too (`usual_drift.py`). Both parts are independent: the squares of
their effects are added. Slices have the usual differences of all rows, as they share what moves all of them; what moves a slice alone alerts.

*Size*: the effect, for all distances on the scale of the Jensen-Shannon distance. A shift of a normal distribution by a tenth of its standard
deviation has the effect 0.04, by a half 0.2.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from mlops_assets.ml.reference import WHOLE, Reference
from mlops_assets.ml.report_rows import DriftRow
from mlops_assets.ml.usual_drift import NOTHING_USUAL, UsualDrift
from mlops_assets.schema.table_columns import arrow_schema, row_columns

_NATS = 8 * math.log(2)
"""Twice the squared Jensen-Shannon distance (in bits) of a small change is the sum of (p - q)^2 / p over this number."""


@dataclass(frozen=True)
class Distance:
    """A measured distance: `rows` of the window have a value, `bins` are those that either side has rows in (0 for Wasserstein)."""

    window: str
    slice: str
    feature: str
    method: str
    value: float
    rows: int
    bins: int


def evaluate_distances(
    distances: Sequence[Distance],
    reference: Reference,
    *,
    effect_floor: float,
    false_alarms: float,
    usual: UsualDrift = NOTHING_USUAL,
    importance: Mapping[str, float] = MappingProxyType({}),
) -> list[DriftRow]:
    """Compare all distances of some windows with their thresholds.

    `false_alarms` is the probability that a window in which nothing changed has any alert. `importance` is that of features.
    """
    described = {(column["slice"], column["feature"]): column for column in reference.columns.to_pylist()}
    cells: dict[str, int] = {}
    for distance in distances:
        cells[distance.window] = cells.get(distance.window, 0) + 1
    rows = []
    for distance in distances:
        column = described[distance.slice, distance.feature]
        probability = false_alarms / cells[distance.window]
        cell, effect = (distance.feature, distance.method), effect_size(distance, column)
        threshold = _threshold(distance, column, probability, usual.limit(cell, probability))
        rows.append(
            DriftRow(
                window=distance.window,
                slice=None if distance.slice == WHOLE else distance.slice,
                feature=distance.feature,
                kind=column["kind"],
                method=distance.method,
                value=distance.value,
                threshold=threshold,
                effect=effect,
                effect_floor=effect_floor,
                rows=distance.rows,
                alert=distance.value > threshold and (effect is None or effect >= effect_floor),
                usual=usual.median(cell),
                farther=usual.farther(cell, effect_beyond_chance(distance, column, _scale(distance, column))),
                windows=usual.windows(cell),
                importance=importance.get(distance.feature) if column["kind"] == "feature" else None,
            )
        )
    return rows


def chance_threshold(distance: Distance, column: Mapping, probability: float) -> float:
    """The value that the distance exceeds with `probability`, or less, when both samples are of one distribution."""
    scale = _scale(distance, column)
    if distance.method == "wasserstein":
        mean, deviation = math.sqrt(2 / math.pi) * column["bridge_scale"], column["standard_deviation"]
        return math.sqrt(scale) * (mean + deviation * math.sqrt(2 * math.log(1 / probability)))
    from scipy.special import chdtri

    quantile = float(chdtri(distance.bins - 1, probability)) if distance.bins > 1 else 0.0
    match distance.method:
        case "jensen_shannon":
            return math.sqrt(scale * quantile / _NATS)
        case "population_stability_index":
            return scale * quantile
        case _:
            return quantile


def effect_size(distance: Distance, column: Mapping) -> float | None:
    """The size of the change as the Jensen-Shannon distance to which a small change of that size leads; None without a spread."""
    match distance.method:
        case "jensen_shannon":
            return distance.value
        case "population_stability_index":
            return math.sqrt(distance.value / _NATS)
        case "chi2":
            return math.sqrt(distance.value * _scale(distance, column) / _NATS)
        case _:
            deviation = column["standard_deviation"]
            return distance.value / deviation / math.sqrt(_NATS) if deviation > 0 else None


def effect_beyond_chance(distance: Distance, column: Mapping, scale: float) -> float | None:
    """The effect less what chance is expected to add to its square, 0 at least; None without a spread.

    `scale` is the variance of the difference of the two samples' shares, without its factor p (1 - p): the sum of the inverses of their rows,
    or the difference of these where one sample is a part of the other.
    """
    effect = effect_size(distance, column)
    if effect is None:
        return None
    expected = scale * (distance.bins - 1) / _NATS
    if distance.method == "wasserstein":
        expected = scale * 2 / math.pi * (column["bridge_scale"] / column["standard_deviation"]) ** 2 / _NATS
    return math.sqrt(max(0.0, effect**2 - max(0.0, expected)))


def _threshold(distance: Distance, column: Mapping, probability: float, usual_limit: float) -> float:
    """The value whose effect is, in squares, the sum of what chance explains and of the `usual_limit`."""
    chance = chance_threshold(distance, column, probability)
    match distance.method:
        case "jensen_shannon":
            return math.hypot(chance, usual_limit)
        case "population_stability_index":
            return chance + usual_limit**2 * _NATS
        case "chi2":
            return chance + usual_limit**2 * _NATS / _scale(distance, column)
        case _:
            return math.hypot(chance, usual_limit * column["standard_deviation"] * math.sqrt(_NATS))


def impact(row: Any) -> float:
    """The effect of a row (its columns), weighted by the importance of its feature where that is known; infinite without a spread."""
    if row["effect"] is None:
        return math.inf
    importance = row.get("importance")
    return float(row["effect"] if importance is None else row["effect"] * importance)


def to_arrow(rows: Sequence[DriftRow]) -> pa.Table:
    """The rows as a table."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=arrow_schema(row_columns(DriftRow)))


def drifted_features(rows: Sequence[DriftRow]) -> tuple[set[str], set[str]]:
    """Of all rows of a window, not of its slices: the features with an alert of any method, and all that were measured."""
    measured = [row for row in rows if row.kind == "feature" and row.slice is None]
    return {row.feature for row in measured if row.alert}, {row.feature for row in measured}


def describe_drift(rows: Sequence[DriftRow]) -> str:
    """One or two plain sentences on what drifted in the window of `rows`, all versions and all its rows, worst first."""
    drifted, measured = drifted_features(rows)
    whole = [row for row in rows if row.slice is None and row.alert]
    effects = {name: max(impact(vars(row)) for row in whole if row.feature == name) for name in drifted}
    ranked = sorted(drifted, key=lambda name: (-effects[name], name))
    more = f" and {len(ranked) - 3} more" if len(ranked) > 3 else ""
    text = (
        f"{len(ranked)} of {len(measured)} features drifted: {', '.join(ranked[:3])}{more}."
        if ranked
        else f"None of the {len(measured)} features drifted."
    )
    others = [sentence for kind, sentence in _SENTENCES.items() if any(row.kind == kind for row in whole)]
    return " ".join([text, *others])


_SENTENCES = {
    "prediction": "The predictions are distributed differently.",
    "label": "The known labels are distributed differently.",
    "all": "The features go together differently.",
}


def _scale(distance: Distance, column: Mapping) -> float:
    return 1 / distance.rows + 1 / column["rows"]
