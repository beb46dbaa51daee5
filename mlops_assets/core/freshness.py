"""How old the newest materialization of an asset may be before Dagster shows it as stale. By the clock on the wall, unlike all data.

What follows the clock has a policy: it is stale when two partitions passed without it, that is when one update was missed, or after the
time that its YAML states. What follows an event has none: a table that changes with its file, what a training or a promotion makes.
A stale feature view also shows in what it feeds: the `view_flags` of a prediction say whose values were too old for it.
"""

from datetime import timedelta

import dagster as dg

from mlops_assets.core.keys import (
    DATA_QUALITY_REPORT,
    DRIFT_REPORT,
    MODEL,
    MONITORING_REPORT,
    ONLINE_FEATURES,
    OUTCOMES,
    PERFORMANCE_REPORT,
    PREDICTIONS,
    RETRAINING_DECISION,
)
from mlops_assets.core.partitions import Cadence
from mlops_assets.schema.solution import Duration, Solution, longest_days

_DAYS: dict[Cadence, int] = {"daily": 1, "weekly": 7, "monthly": 31, "yearly": 366}

_OF_PARTITIONS = (ONLINE_FEATURES, PREDICTIONS, OUTCOMES)
_OF_WINDOWS = (DATA_QUALITY_REPORT, DRIFT_REPORT, PERFORMANCE_REPORT, MONITORING_REPORT, RETRAINING_DECISION)


def freshness_policy(limit: Duration | None) -> dg.FreshnessPolicy | None:
    """The policy that fails after `limit`; none without a limit."""
    return None if limit is None else _policy(longest_days(limit))


def cadence_freshness(cadence: Cadence, days: int | None = None) -> dg.FreshnessPolicy:
    """The policy of a table with partitions: it fails after `days`, without a number after two partitions."""
    return _policy(days or 2 * _DAYS[cadence])


def stage_freshness(solution: Solution, stage: str) -> dg.FreshnessPolicy | None:
    """The policy of one stage; a model has the age at which it is trained again. None for stages that follow an event."""
    partitions = solution.partitions
    if stage == MODEL:
        return freshness_policy(solution.retraining.max_age)
    if stage in _OF_PARTITIONS:
        return freshness_policy(partitions.freshness) or cadence_freshness(partitions.cadence)
    return cadence_freshness(solution.monitoring.window) if stage in _OF_WINDOWS else None


def _policy(days: int) -> dg.FreshnessPolicy:
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(days=days))
