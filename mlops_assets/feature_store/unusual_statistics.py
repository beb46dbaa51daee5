"""Statistics of a partition of a feature view that are unusual among those of the partitions before it.

Missing share, share of the most frequent value and mean of every feature are held against at most `EARLIER_PARTITIONS` partitions before, by the
rule of drift (`ml/usual_drift.py`): a value is unusual where it is farther from their median than all of them, and than their robust spread
makes likely at a probability that all values of a partition share, and by an effect that matters. No solution that uses a view matters.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import duckdb

from mlops_assets.feature_store.statistics import PARTITION

if TYPE_CHECKING:
    import numpy as np

EARLIER_PARTITIONS = 90
FALSE_ALARMS = 0.01
"""The probability that any statistic of a usual partition is called unusual."""

_HEAVY_TAIL = 4
"""The degrees of freedom of Student's distribution of a day's distance: storms are farther than a normal distribution has them (ADR 0042)."""

_FEWEST_PARTITIONS = 20
_FEWEST_ROWS = 30
"""Of fewer partitions or rows nothing is compared."""

_LEAST_SHARE = 0.05
_LEAST_DEVIATIONS = 0.25
"""The effects that matter: of a share, and of a mean in the usual standard deviations of the feature's values."""


@dataclass(frozen=True)
class UnusualStatistic:
    """A `statistic` of a feature in one partition, whose `value` is farther from the `median` of `partitions` before it than `limit`."""

    feature: str
    statistic: str
    value: float
    median: float
    limit: float
    partitions: int


@dataclass(frozen=True)
class _Series:
    """The values of one statistic of one feature by partition, and what change of them matters."""

    feature: str
    statistic: str
    partitions: Sequence[date]
    values: "np.ndarray"
    effects: "np.ndarray"


def find_unusual(
    connection: duckdb.DuckDBPyConnection, *, table: str, label: str, partitions: Sequence[date], earliest: date
) -> dict[date, list[UnusualStatistic]]:
    """Return what is unusual in each of `partitions` of a `table` of statistics, which is read from `earliest` on.

    `label` is SQL for the name of a feature with its view.
    """
    rows = connection.execute(
        f"SELECT {label}, {PARTITION}, missing_share, most_frequent_share, mean, {_LEAST_DEVIATIONS} * standard_deviation FROM lake.{table} "
        f"WHERE {PARTITION} BETWEEN ? AND ? AND rows >= ? ORDER BY 1, 2",
        [earliest, max(partitions), _FEWEST_ROWS],
    ).fetchall()
    series = [one for _, of_feature in groupby(rows, key=itemgetter(0)) for one in _series(list(of_feature))]
    return {partition: _unusual_of(series, partition) for partition in partitions}


def _series(rows: Sequence[tuple[Any, ...]]) -> Iterator[_Series]:
    """The statistics of one feature, from its rows in order of time."""
    import numpy as np

    features, partitions, missing, frequent, means, effects = zip(*rows, strict=True)
    least = [_LEAST_SHARE] * len(rows)
    for statistic, values, matters in (
        ("missing_share", missing, least),
        ("most_frequent_share", frequent, least),
        ("mean", means, effects),
    ):
        known = [place for place, value in enumerate(values) if value is not None]
        yield _Series(
            features[0],
            statistic,
            [partitions[place] for place in known],
            np.array([values[place] for place in known], dtype=float),
            np.array([matters[place] for place in known], dtype=float),
        )


def _unusual_of(series: Sequence[_Series], partition: date) -> list[UnusualStatistic]:
    import numpy as np

    from mlops_assets.ml.usual_drift import usual_limit

    compared = [
        (one, place)
        for one in series
        if (place := bisect_left(one.partitions, partition)) >= _FEWEST_PARTITIONS
        and place < len(one.partitions)
        and one.partitions[place] == partition
    ]
    unusual = []
    for one, place in compared:
        earlier = slice(max(0, place - EARLIER_PARTITIONS), place)
        median = float(np.median(one.values[earlier]))
        distances, distance = np.abs(one.values[earlier] - median), abs(float(one.values[place]) - median)
        # Most end here, before anything that takes longer.
        if distance <= distances.max():
            continue
        usual = usual_limit(distances, FALSE_ALARMS / len(compared), degrees=_HEAVY_TAIL)
        limit = max(usual, float(np.nanmedian(one.effects[earlier])))
        if distance > limit:
            value, count = float(one.values[place]), place - earlier.start
            unusual.append(UnusualStatistic(one.feature, one.statistic, value, median, limit, count))
    return unusual
