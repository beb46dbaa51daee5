"""The assets of maintenance have this in common: keys, declaration, metadata of sizes."""

from functools import partial

import dagster as dg

from mlops_assets.core.keys import PLATFORM
from mlops_assets.runs.slots import MAINTENANCE, SLOTS_TAG
from mlops_assets.stages.execution import RETRIES

LAKE_MAINTENANCE, RUN_MAINTENANCE, MODEL_MAINTENANCE, REPORT_MAINTENANCE = (
    dg.AssetKey([PLATFORM, f"{name}_maintenance"]) for name in ("lake", "run", "model", "report")
)

MAINTENANCE_ASSETS = (LAKE_MAINTENANCE, RUN_MAINTENANCE, MODEL_MAINTENANCE, REPORT_MAINTENANCE)
"""All of them: each is a step of its own, and one that fails stops no other."""

upkeep_asset = partial(
    dg.asset,
    group_name=PLATFORM,
    owners=["team:platform"],
    op_tags={SLOTS_TAG: MAINTENANCE},
    retry_policy=RETRIES,
)
"""`dg.asset` as every asset of maintenance is declared. They run one at a time, beside everything else."""
