"""When assets follow their inputs by themselves: the automation conditions of all stages, and the sensor that evaluates them.

A condition asks for an asset's partitions whose inputs were written since the sensor is on, once all inputs are there, none is being
written, and the blocking checks of all of them passed. What is older is left alone: switching automation on starts no backfill.
Training stages have no condition: they follow decisions (`automation/retraining.py`).
"""

import dagster as dg

from mlops_assets.keys import (
    DATA_QUALITY_REPORT,
    DEPLOYMENT,
    DRIFT_REPORT,
    EVALUATION,
    MONITORING_REPORT,
    ONLINE_FEATURES,
    OUTCOMES,
    PERFORMANCE_REPORT,
    PREDICTIONS,
    RETRAINING_DECISION,
    SEGMENT_STAGES,
    STAGE_TAG,
)

CONDITIONS_SENSOR = "automation"

_SETTLED = (
    ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
)
_COMPLETE = _SETTLED & ~dg.AutomationCondition.any_deps_missing()
_WRITTEN = dg.AutomationCondition.any_deps_updated().since_last_handled()

FOLLOW = (_WRITTEN & _COMPLETE).with_label("follow_inputs")
"""Of assets with the partitions of their inputs: features, their statistics, outcomes, reports, decisions."""

FOLLOW_AS_A_WHOLE = (_WRITTEN & _SETTLED).with_label("follow_partitioned_inputs")
"""Of an asset without partitions that takes what its partitioned inputs hold: there, some partition is always missing."""

ARRIVE = dg.AutomationCondition.on_missing()
"""Of raw tables whose partitions have no end: the newest one is loaded when its time has passed."""

_EVERY_TRAINING = (
    dg.AssetSelection.tag(STAGE_TAG, DEPLOYMENT)
    | dg.AssetSelection.tag(STAGE_TAG, SEGMENT_STAGES[DEPLOYMENT])
    | dg.AssetSelection.tag(STAGE_TAG, EVALUATION)
)
"""What a prediction or a report needs one partition of, and not all: only the former are asked for."""

_AFTER_A_MODEL = FOLLOW.ignore(_EVERY_TRAINING)

_HAS_CHAMPION = dg.AutomationCondition.any_deps_match(~dg.AutomationCondition.missing()).allow(
    dg.AssetSelection.tag(STAGE_TAG, DEPLOYMENT)
)
"""Somebody was deployed, for whatever training date."""

_CONDITIONS: dict[str, dg.AutomationCondition] = {
    ONLINE_FEATURES: FOLLOW_AS_A_WHOLE,
    # What was predicted stays as it was predicted: a new champion or a corrected feature predicts what is new.
    PREDICTIONS: (_AFTER_A_MODEL & _HAS_CHAMPION & dg.AutomationCondition.missing()).with_label("follow_inputs_once"),
    OUTCOMES: FOLLOW,
    DATA_QUALITY_REPORT: _AFTER_A_MODEL,
    DRIFT_REPORT: _AFTER_A_MODEL,
    PERFORMANCE_REPORT: _AFTER_A_MODEL,
    MONITORING_REPORT: FOLLOW,
    RETRAINING_DECISION: _AFTER_A_MODEL,
}


def stage_condition(stage: str) -> dg.AutomationCondition | None:
    """The condition of one stage of a solution; None for those that only a training run makes."""
    return _CONDITIONS.get(stage)


def build_conditions_sensor() -> dg.AutomationConditionSensorDefinition:
    """The one sensor that evaluates all conditions, so that what follows in one tick becomes one run. Off until it is switched on."""
    return dg.AutomationConditionSensorDefinition(
        CONDITIONS_SENSOR,
        target=dg.AssetSelection.all(),
        description="Lets features, predictions, outcomes, reports and decisions follow new partitions.",
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=30,
    )
