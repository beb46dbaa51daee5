"""When assets follow their inputs by themselves: the automation conditions that stages have, and the sensors that evaluate them.

A condition asks for an asset's partitions whose inputs were written since its sensor is on, once all inputs are there, none is being
written, and the blocking checks of all of them passed. What is older is left alone: switching automation on starts no backfill.
Training stages have no condition: they follow decisions (`monitoring/retraining_sensor.py`).
"""

import dagster as dg

from mlops_assets.core.keys import DEPLOYMENT, EVALUATION, SEGMENT_STAGES, STAGE_TAG
from mlops_assets.core.settings import sensor_interval

_INTERVAL_SECONDS = 30
CONDITIONS_SENSORS = ("feature_automation", "automation")
"""Names of the sensors that evaluate the conditions: of the dbt models, and of all else."""

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

AFTER_A_MODEL = FOLLOW.ignore(_EVERY_TRAINING)
"""Of reports and decisions, which read what one training made."""

_HAS_CHAMPION = dg.AutomationCondition.any_deps_match(~dg.AutomationCondition.missing()).allow(
    dg.AssetSelection.tag(STAGE_TAG, DEPLOYMENT)
)
"""Somebody was deployed, for whatever training date."""

PREDICT_ONCE = (AFTER_A_MODEL & _HAS_CHAMPION & dg.AutomationCondition.missing()).with_label("follow_inputs_once")
"""Of predictions. What was predicted stays as it was predicted: a new champion or a corrected feature predicts what is new."""


def build_conditions_sensors() -> list[dg.SensorDefinition]:
    """The two sensors that evaluate all conditions: what follows in one tick of one becomes one run. Off until they are switched on.

    dbt models have one of their own: a run that Dagster asks for and that has other assets too names the checks of those, which
    always run with them, and so leaves out the dbt tests.
    """
    of_dbt = dg.AssetSelection.kind("dbt")
    features, others = CONDITIONS_SENSORS
    return [
        _sensor(features, of_dbt, "Lets staging tables, features and spines follow new partitions of what they read."),
        _sensor(
            others, dg.AssetSelection.all() - of_dbt, "Lets predictions, outcomes, reports and decisions follow new partitions."
        ),
    ]


def _sensor(name: str, target: dg.AssetSelection, description: str) -> dg.SensorDefinition:
    return dg.AutomationConditionSensorDefinition(
        name,
        target=target,
        description=description,
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
    )
