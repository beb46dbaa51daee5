"""The check of the statistics of feature views: each partition against those before it, once for all solutions that use the views."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date

import dagster as dg

from mlops_assets.core.check_rules import MOST_EXAMPLES, CheckRule, Evidence, PartitionCheckResult
from mlops_assets.feature_store.unusual_statistics import UnusualStatistic

USUAL_VALUES = CheckRule(
    name="usual_values",
    description="No feature's missing share, mean or most frequent value is far from those of the partitions before, beyond what is usual.",
    blocking=False,
    evidence=Evidence(measured=("unusual",), bound=("maximum_unusual",), examples=("examples",)),
)


def check_usual_values(key: dg.AssetKey, unusual: Mapping[date, Sequence[UnusualStatistic]]) -> list[PartitionCheckResult]:
    """The outcome for each partition of the statistics, from what is unusual in it."""
    return [_result(key, partition, statistics) for partition, statistics in unusual.items()]


def describe_unusual(one: UnusualStatistic) -> str:
    """Return the sentence of one statistic."""
    statistic = one.statistic.replace("_", " ")
    return f"{one.feature}: {statistic} {one.value:.4g}, farther from {one.median:.4g} than in each of {one.partitions} partitions before"


def _result(key: dg.AssetKey, partition: date, unusual: Sequence[UnusualStatistic]) -> PartitionCheckResult:
    farthest = sorted(unusual, key=lambda one: one.limit / abs(one.value - one.median))
    result = USUAL_VALUES.result(
        key,
        passed=not unusual,
        metadata={
            "unusual": len(unusual),
            "maximum_unusual": 0,
            "examples": dg.MetadataValue.json([asdict(one) for one in farthest[:MOST_EXAMPLES]]),
        },
        description="; ".join(map(describe_unusual, farthest[:MOST_EXAMPLES])) or None,
    )
    return PartitionCheckResult.from_result(result, partition.isoformat())
