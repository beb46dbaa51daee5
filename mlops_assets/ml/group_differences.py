"""Metrics of groups of rows beside those of the other rows: difference and ratio, with the intervals of one bootstrap.

A group and the others are measured on the same resamples, which draw whole days where there are enough: what a day does to both is no
difference. Metrics that fewer rows raise, as the expected calibration error, cannot be compared between samples of other sizes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mlops_assets.ml.bootstrap import (
    Interval,
    Replicates,
    difference_interval,
    errors_of_chance,
    ratio_interval,
    replicate_count,
    resample,
    standard_error,
)
from mlops_assets.ml.evaluation import Resampling, rows_by_value
from mlops_assets.ml.weighted_metrics import WeightedMetrics, compute
from mlops_assets.schema.metric_names import METRICS, greater_is_better


@dataclass(frozen=True, kw_only=True)
class GroupDifference:
    """One metric of the `rows` where `column` is `group`, and of the `other_rows`: all others, or those of the group `reference`.

    `error` is the standard error of the difference, `chance` how many of them a false alarm needs.
    """

    column: str
    group: str
    reference: str | None
    metric: str
    rows: int
    other_rows: int
    value: float | None
    other_value: float | None
    difference_interval: Interval | None
    ratio_interval: Interval | None
    error: float | None
    chance: float

    @property
    def difference(self) -> float | None:
        """The group's value less that of the others."""
        return None if self.value is None or self.other_value is None else self.value - self.other_value

    @property
    def ratio(self) -> float | None:
        """The group's value over that of the others."""
        return None if self.value is None or not self.other_value else self.value / self.other_value

    @property
    def loss(self) -> float | None:
        """By how much the group is worse; negative when it is better."""
        return None if self.difference is None else -self.difference if greater_is_better(self.metric) else self.difference

    @property
    def least_loss(self) -> float | None:
        """The lower end of the interval of `loss`."""
        if self.difference_interval is None:
            return None
        return -self.difference_interval.high if greater_is_better(self.metric) else self.difference_interval.low

    @property
    def words(self) -> str:
        """Both values, the difference and the ratio in words."""
        others = f"{self.column} = {self.reference}" if self.reference else "the others"
        if self.difference is None:
            return f"{self.metric} is not defined for the group or for {others} ({self.rows:,} and {self.other_rows:,} rows)"
        ratio = f", ratio {self.ratio:.3g}{_in_brackets(self.ratio_interval)}" if self.ratio is not None else ""
        return (
            f"{self.metric} {self.value:.4g} of {self.rows:,} rows, {self.other_value:.4g} of {others}: "
            f"difference {self.difference:+.4g}{_in_brackets(self.difference_interval)}{ratio}"
        )


def comparable_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Those of `metrics` that may be compared between samples of different sizes."""
    return tuple(name for name in metrics if not METRICS.get(name).biased_upwards)


def compare_groups(
    rows: WeightedMetrics,
    groups: pa.Table,
    *,
    references: Mapping[str, str],
    metrics: Sequence[str],
    minimum_rows: int,
    false_alarms: float,
    resampling: Resampling,
) -> list[GroupDifference]:
    """Return every metric of each group that has `minimum_rows` rows, as the others must have: the values of each column of `groups`.

    The other rows are those of the group that `references` names for the column, else all others. `false_alarms` is the probability that
    any of the differences exceeds chance where none is real; it is divided among them.
    """
    pairs = _pairs(groups, references, minimum_rows)
    positions = {
        part: of_part for pair in pairs for part, of_part in ((pair.part, pair.rows), (pair.other_part, pair.other_rows))
    }
    measured = {part: _measure(rows, of_part, metrics, resampling) for part, of_part in positions.items()}
    chance = errors_of_chance(false_alarms / max(1, len(pairs) * len(metrics)), resampling.blocks)
    return [_difference(pair, metric, measured, chance=chance, blocks=resampling.blocks) for pair in pairs for metric in metrics]


@dataclass(frozen=True)
class _Part:
    """The rows of a group, or all that are not in it."""

    column: str
    group: str
    is_rest: bool = False


@dataclass(frozen=True)
class _Pair:
    """A group and its others, with the positions of their rows."""

    column: str
    group: str
    reference: str | None
    rows: np.ndarray
    other_rows: np.ndarray

    @property
    def part(self) -> _Part:
        """The group."""
        return _Part(self.column, self.group)

    @property
    def other_part(self) -> _Part:
        """The others: a reference is the same part for all groups."""
        return _Part(self.column, self.reference) if self.reference else _Part(self.column, self.group, is_rest=True)


def _pairs(groups: pa.Table, references: Mapping[str, str], minimum_rows: int) -> list[_Pair]:
    pairs = []
    for column in groups.column_names:
        positions, reference = rows_by_value(groups.column(column)), references.get(column)
        for group, rows in positions.items():
            if group == reference:
                continue
            others = np.delete(np.arange(groups.num_rows), rows) if reference is None else positions.get(reference, rows[:0])
            if min(len(rows), len(others)) >= minimum_rows:
                pairs.append(_Pair(column, group, reference, rows, others))
    return pairs


@dataclass(frozen=True)
class _Measured:
    """The metrics of a part, and their values on the resamples of all rows."""

    values: Mapping[str, float | None]
    replicates: Replicates


def _measure(rows: WeightedMetrics, positions: np.ndarray, metrics: Sequence[str], resampling: Resampling) -> _Measured:
    part, count, blocks = rows.part(positions), len(rows.labels), resampling.blocks
    # The same seed draws the same resamples for every part.
    drawn = resample(count, replicate_count(count), resampling.seed, blocks)
    if blocks is None:
        batches = [part.of(np.take(weights, positions, axis=1), metrics) for weights in drawn]
    else:
        of_part = blocks[positions]
        weighted = part.weighted(metrics, of_part)
        # The blocks after the last one of the part have none of its rows.
        batches = [compute(weighted, weights[:, : int(of_part.max()) + 1]) for weights in drawn]
    return _Measured(part.values(metrics), {name: np.concatenate([batch[name] for batch in batches]) for name in metrics})


def _difference(
    pair: _Pair, metric: str, measured: Mapping[_Part, _Measured], *, chance: float, blocks: np.ndarray | None
) -> GroupDifference:
    group, others = measured[pair.part], measured[pair.other_part]
    ours, theirs = group.replicates[metric], others.replicates[metric]
    difference = GroupDifference(
        column=pair.column,
        group=pair.group,
        reference=pair.reference,
        metric=metric,
        rows=len(pair.rows),
        other_rows=len(pair.other_rows),
        value=group.values[metric],
        other_value=others.values[metric],
        difference_interval=None,
        ratio_interval=None,
        error=standard_error(ours - theirs, blocks),
        chance=chance,
    )
    return replace(
        difference,
        difference_interval=difference_interval(metric, difference.difference, ours, theirs, blocks),
        ratio_interval=ratio_interval(difference.ratio, ours, theirs, blocks),
    )


def _in_brackets(interval: Interval | None) -> str:
    return "" if interval is None else f" [{interval.low:.3g}, {interval.high:.3g}]"
