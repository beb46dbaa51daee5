"""How a step waits for its place in a pool: asleep, and no longer than a second after the place is free.

Dagster's executor in the process of the run asks without a pause whether it is time to try again, which takes a processor
(https://github.com/dagster-io/dagster/pull/20367, not merged), and tries again after up to 15 s. Every process with the platform's storage
sleeps instead, in pods too.
"""

import time

from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext

TRY_SECONDS = 1.0
"""How long after a refusal a step asks for a place again."""


DAGSTERS_WAIT = InstanceConcurrencyContext.interval_to_next_pending_claim_check
"""What is replaced: the seconds to sleep, which are never more than none."""


def sleep_until_due() -> None:
    """Let this process sleep while its run waits for a place in a pool."""
    InstanceConcurrencyContext.interval_to_next_pending_claim_check = _seconds_to_next_try  # type: ignore[method-assign]


def _seconds_to_next_try(self: InstanceConcurrencyContext) -> float:
    moments, latest = self._pending_timeouts, time.time() + TRY_SECONDS
    # One that is further away was set before the clock was set back: its step would wait until the clock has caught up.
    moments.update({step: latest for step, moment in moments.items() if moment > latest})
    # A moment too late rather than too early: what is not due yet is not tried.
    return max(0.0, min(moments.values()) - time.time()) + 0.001 if moments else 0.0
