"""Refused candidates: the end of a step that found a fault in what it made, not in itself.

A failed blocking check fails its step, and with it the run: that is for faults. A candidate that is not good enough is a result. Its step
succeeds and its asset is materialized, and the steps downstream of it are skipped by Dagster, which skips what reads an output that a step
did not give.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

# Dagster writes the version of the data into this tag of a materialization, and has no public name for the tag.
from dagster._core.definitions.data_version import DATA_VERSION_TAG

REFUSED_METADATA = "refused_because"
"""Metadata of a materialization whose candidate was refused: the checks that failed, with their sentences."""


def conclude(
    context: dg.AssetExecutionContext, result: dg.MaterializeResult, refused_because: str | None
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Yield the events that end a step: `result`, or the checks of a refused candidate after its materialization.

    The asset of the step has `output_required=False`, and its checks do not block.
    """
    if refused_because is None:
        yield result
        return
    metadata: dict[str, Any] = {**(result.metadata or {}), REFUSED_METADATA: refused_because}
    tags = {DATA_VERSION_TAG: result.data_version.value} if result.data_version else {}
    context.log_event(dg.AssetMaterialization(context.asset_key, partition=context.partition_key, metadata=metadata, tags=tags))
    yield from result.check_results or []
    context.log.info(f"The candidate is refused, and what follows in this run is skipped. {refused_because}")
