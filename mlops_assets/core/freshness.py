"""Freshness policies: the age from which Dagster shows an asset as stale. The clock is the wall's, unlike that of all data.

What follows the clock has a policy: it is stale when two partitions passed without it, that is when one update was missed, or after the
time that its YAML states. What follows an event has none: a table that changes with its file, what a training or a promotion makes.
A stale feature view also shows in what it feeds: the `view_flags` of a prediction say whose values were too old for it.
"""

from datetime import timedelta

import dagster as dg

from mlops_assets.schema.cadence import CADENCE_LENGTHS, Cadence
from mlops_assets.schema.duration import Duration, maximum_days
from mlops_assets.schema.solution import Solution


def freshness_policy(limit: Duration | None) -> dg.FreshnessPolicy | None:
    """The policy that fails after `limit`; none without a limit."""
    return None if limit is None else _policy(maximum_days(limit))


def cadence_freshness(cadence: Cadence, days: int | None = None) -> dg.FreshnessPolicy:
    """The policy of a table with partitions: it fails after `days`, without a number after two partitions."""
    return _policy(days or 2 * CADENCE_LENGTHS[cadence].most_days)


def partition_freshness(solution: Solution) -> dg.FreshnessPolicy | None:
    """The policy of a stage with the partitions of the solution, which state it or have that of their cadence."""
    return freshness_policy(solution.partitions.freshness) or cadence_freshness(solution.partitions.cadence)


def window_freshness(solution: Solution) -> dg.FreshnessPolicy | None:
    """The policy of a stage with monitoring windows."""
    return cadence_freshness(solution.monitoring.window)


def model_freshness(solution: Solution) -> dg.FreshnessPolicy | None:
    """The policy of a model: the age at which it is trained again."""
    return freshness_policy(solution.retraining.max_age)


def never_stale(solution: Solution) -> dg.FreshnessPolicy | None:
    """No policy: of a stage that follows an event."""
    return None


def _policy(days: int) -> dg.FreshnessPolicy:
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(days=days))
