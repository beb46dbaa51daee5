"""Names of assets, tables, groups and tags: the one place that spells them."""

import dagster as dg

from mlops_assets.schema import column_names

RAW_SCHEMA = "raw"
STAGING_SCHEMA = "staging"
FEATURES_SCHEMA = "features"

PLATFORM = "platform"
"""First part of the key of what serves all solutions, and its group."""

STAGE_TAG = "mlops/stage"
SOLUTION_TAG = "mlops/solution"
PURPOSE_TAG = "mlops/purpose"
"""On runs of Dagster's implicit job and those of commands: what they are for, in words, as the run list shows it."""
MUST_GAIN_TAG = "mlops/must_gain"
"""On the run of a training: its candidate must be better than the champion beyond chance, since nothing shows that newer history helps."""
FOLLOWS_RUNS: dict[str, str] = {"mlops/follows": "runs"}
"""On sensors that look at what runs have done: they are evaluated as soon as one has ended, not only at their interval."""
CHECK_EVENT_TAG = "mlops/check_event"
"""How failed checks of an asset are called in notifications; without it `check_failed`, told when they block."""

TRAINING_DATASET = "training_dataset"
MODEL = "model"
EVALUATION = "evaluation"
ONLINE_FEATURES = "online_features"
DEPLOYMENT = "deployment"
CHALLENGER = "challenger"
PREDICTIONS = "predictions"
PREDICTION_LOG = "prediction_log"
SHADOW_PREDICTIONS = "shadow_predictions"
ALL_PREDICTIONS = "all_predictions"
OUTCOMES = "outcomes"
DRIFT_REPORT = "drift_report"
PERFORMANCE_REPORT = "performance_report"
DATA_QUALITY_REPORT = "data_quality_report"
MONITORING_REPORT = "monitoring_report"
RETRAINING_DECISION = "retraining_decision"

TRAINING_DATE, SEGMENT = column_names.TRAINING_DATE, column_names.SEGMENT
"""Dimensions of the partitions of the segments' models, and columns of the tables of a solution's training stages."""

SEGMENT_STAGES = {stage: f"segment_{stage}" for stage in (MODEL, EVALUATION, DEPLOYMENT)}
"""Stage -> its name where it is that of the segments' models."""


def table_key(table: str) -> dg.AssetKey:
    """Asset key of the lake table `schema.name`."""
    return dg.AssetKey(table.split("."))


def table_name(key: dg.AssetKey) -> str:
    """Lake table `schema.name` behind an asset key of two parts."""
    return ".".join(key.path)


def stage_key(solution: str, stage: str) -> dg.AssetKey:
    """Asset key of one stage of one solution."""
    return dg.AssetKey([solution, stage])


def stage_table(solution: str, stage: str) -> str:
    """Lake table of one stage of one solution."""
    return f"{solution}.{stage}"


def stage_tags(solution: str, stage: str) -> dict[str, str]:
    """Tags of one stage of one solution."""
    return {SOLUTION_TAG: solution, STAGE_TAG: stage}


def group_name(source: str, schema: str) -> str:
    """Group of an asset: `<source>_<layer>` where sources share a schema of the lake, else the schema, which is a solution's name."""
    return f"{source}_{schema}" if schema in (RAW_SCHEMA, STAGING_SCHEMA, FEATURES_SCHEMA) else schema


def job_name(owner: str, purpose: str) -> str:
    """Name of the job that runs one part of a solution, such as `training`, or of a source: `loading`."""
    return f"{owner}_{purpose}"
