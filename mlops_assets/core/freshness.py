"""How old the newest materialization of an asset may be before Dagster shows it as stale. By the clock on the wall, unlike all data.

A stale feature view also shows in what it feeds: the `view_flags` of a prediction say whose values were too old for it.
"""

from datetime import timedelta

import dagster as dg

from mlops_assets.core.keys import MODEL, PREDICTIONS
from mlops_assets.schema.solution import Duration, Solution, longest_days


def freshness_policy(limit: Duration | None) -> dg.FreshnessPolicy | None:
    """The policy that fails after `limit`; none without a limit."""
    return None if limit is None else dg.FreshnessPolicy.time_window(fail_window=timedelta(days=longest_days(limit)))


def stage_freshness(solution: Solution, stage: str) -> dg.FreshnessPolicy | None:
    """The policy of one stage: predictions have that of the partitions, a model the age at which it is trained again."""
    limits = {PREDICTIONS: solution.partitions.freshness, MODEL: solution.retraining.max_age}
    return freshness_policy(limits.get(stage))
