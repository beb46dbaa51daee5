"""The lead of the best accepted version over a later one: by how much a level has sunk through versions that were each good enough.

The level on a hold-out says little by itself: rows of one month are harder than those of another. Comparable are two versions on the same
rows. An evaluation compares its candidate with the champion on the hold-out of the candidate, so the lead of the best version over the candidate
is its lead over the champion and what the candidate loses to the champion. Where that sum is not above zero, the candidate is the best, and
nobody leads. A gate lets a candidate lose a little to the champion; a chain of such losses adds up here and nowhere else.

What the rows explain is taken off: the sum counts by what it exceeds its own standard error, so that of equal versions hardly any leads.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlops_assets.ml.comparison import MetricDifference

_INTERVAL_ERRORS = 2 * 1.959964
"""The width of a 95 % interval in standard errors."""

_CERTAIN = 2.326348
"""How many standard errors a lead must exceed: equal versions do so once in a hundred."""


@dataclass(frozen=True)
class Lead:
    """The lead of `version` by a metric: the sum of the losses to it on common rows, in the metric's units, and the variance of the sum."""

    version: int
    loss: float
    variance: float

    @property
    def certain(self) -> float:
        """The part of the lead that chance does not explain."""
        return max(0.0, self.loss - _CERTAIN * math.sqrt(self.variance))


Leads = Mapping[str, Lead]
"""The leads over one version by metric; a metric in which no version leads is left out."""


def leads_over_candidate(over_champion: Leads, champion: int, differences: Mapping[str, MetricDifference]) -> dict[str, Lead]:
    """Return the leads over a candidate from those over the champion and the `differences` to the champion on the same rows."""
    leads = {}
    for metric, difference in differences.items():
        if difference.loss is None or difference.interval is None:
            continue
        before = over_champion.get(metric, Lead(champion, 0.0, 0.0))
        error = (difference.interval.high - difference.interval.low) / _INTERVAL_ERRORS
        lead = Lead(before.version, before.loss + difference.loss, before.variance + error**2)
        if lead.loss > 0:
            leads[metric] = lead
    return leads
