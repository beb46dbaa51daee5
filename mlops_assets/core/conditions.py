"""The automation conditions of the stages, and the sensors that evaluate them.

A condition asks for an asset's partitions whose inputs were written with other rows since its sensor is on, once all inputs are there, none
is being written, and the blocking checks of all of them passed. What is older is left alone: switching automation on starts no backfill.
Training stages have no condition: they follow decisions (`monitoring/retraining_sensor.py`).
"""

import functools
import operator
from collections.abc import Sequence

import dagster as dg

from mlops_assets.core.keys import (
    DEPLOYMENT,
    EVALUATION,
    FOLLOWS_RUNS,
    OUTCOMES,
    PREDICTION_LOG,
    PREDICTIONS,
    PURPOSE_TAG,
    SEGMENT_STAGES,
    STAGE_TAG,
    TRAINING_DATASET,
)
from mlops_assets.core.settings import sensor_interval

_INTERVAL_SECONDS = 30
CONDITIONS_SENSORS = ("feature_automation", "automation")
"""Names of the sensors that evaluate the conditions: of the dbt models, and of all else."""

_IDLE = ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()

_STOPPED = dg.AutomationCondition.any_deps_match(
    ~dg.AutomationCondition.missing()
    & dg.AutomationCondition.any_checks_match(
        ~(dg.AutomationCondition.check_passed() | dg.AutomationCondition.will_be_requested()), blocking_only=True
    )
).with_label("any_partition_of_deps_is_stopped")
"""A blocking check of any partition that is there has not passed. Dagster's `all_deps_blocking_checks_passed` is true for a window when the
checks of one of its days passed."""

_COMPLETE = _IDLE & ~_STOPPED & ~dg.AutomationCondition.any_deps_missing()

_OTHER_CONTENT = dg.AutomationCondition.any_deps_match(
    (dg.AutomationCondition.data_version_changed() & ~dg.AutomationCondition.executed_with_root_target())
    | dg.AutomationCondition.will_be_requested()
).with_label("any_deps_have_other_content")
"""An input has other rows than before, or is about to be written. The data version of an asset is its content."""

_FIRST_TIME = dg.AutomationCondition.missing() & dg.AutomationCondition.any_deps_updated()
"""What was never made follows an input that was written again as it was."""

_WRITTEN = (_OTHER_CONTENT | _FIRST_TIME).since_last_handled()

ON_NEW_INPUTS = (_WRITTEN & _COMPLETE).with_label("follow_inputs")
"""Of assets with the partitions of their inputs: features, their statistics, pages."""

ON_NEW_PARTITIONED_INPUTS = (_WRITTEN & _IDLE & dg.AutomationCondition.all_deps_blocking_checks_passed()).with_label(
    "follow_partitioned_inputs"
)
"""Of an asset without partitions that takes what its partitioned inputs hold: there, some partition is always missing or stopped."""

ON_MISSING_PARTITION = dg.AutomationCondition.on_missing()
"""Of raw tables whose partitions have no end: the newest one is loaded when its time has passed."""


def _stages(*stages: str) -> dg.AssetSelection:
    return functools.reduce(operator.or_, (dg.AssetSelection.tag(STAGE_TAG, stage) for stage in stages))


_EVERY_TRAINING = _stages(TRAINING_DATASET, EVALUATION, DEPLOYMENT, *SEGMENT_STAGES.values())
"""What a prediction or a report needs one partition of, and not all: only the former are asked for."""

_BATCH, _PREDICTED, _OUTCOMES = _stages(PREDICTIONS), _stages(PREDICTIONS, PREDICTION_LOG), _stages(OUTCOMES)

ON_NEW_REPORTS = ON_NEW_INPUTS.ignore(_PREDICTED | _OUTCOMES | _EVERY_TRAINING).with_label("follow_reports")
"""Of the page and the decision of a window: they read the rows behind the reports, which waited for them."""

_HAS_CHAMPION = dg.AutomationCondition.any_deps_match(~dg.AutomationCondition.missing()).allow(
    dg.AssetSelection.tag(STAGE_TAG, DEPLOYMENT)
)
"""Somebody was deployed, for whatever training date."""


def on_missing_predictions(late_views: Sequence[dg.AssetKey]) -> dg.AutomationCondition:
    """The condition of predictions. What was predicted stays as it was predicted: a new champion or a corrected feature predicts what is new.

    A partition is predicted without those of `late_views` that are missing once its check `inputs_arrived` failed. A sensor, which knows the
    time, records that failure when the wait for them is over: `monitoring/late_inputs_sensor.py`.
    """
    arrived: dg.AutomationCondition = ~dg.AutomationCondition.any_deps_missing()
    if late_views:
        is_told = dg.AutomationCondition.any_checks_match(dg.AutomationCondition.check_failed())
        others_arrived = ~dg.AutomationCondition.any_deps_missing().ignore(dg.AssetSelection.assets(*late_views))
        arrived = (arrived | (is_told & others_arrived)).with_label("inputs_arrived_or_may_be_late")
    follows = (_WRITTEN & _IDLE & ~_STOPPED & arrived).ignore(_EVERY_TRAINING)
    return (follows & _HAS_CHAMPION & dg.AutomationCondition.missing()).with_label("follow_inputs_once")


_NOT_MISSING = ~dg.AutomationCondition.missing() | dg.AutomationCondition.will_be_requested()
ON_NEW_PREDICTIONS = (
    (
        _WRITTEN
        & _IDLE
        & ~_STOPPED
        & ~dg.AutomationCondition.any_deps_missing().ignore(_PREDICTED)
        & dg.AutomationCondition.any_deps_match(_NOT_MISSING).allow(_PREDICTED)
    )
    .ignore(_EVERY_TRAINING)
    .with_label("follow_predictions")
)
"""Of outcomes: whoever predicted, the batch or a server, or both."""

_AWAITED = ~_NOT_MISSING & (
    dg.AutomationCondition.any_deps_missing().ignore(_PREDICTED | _EVERY_TRAINING)
    | dg.AutomationCondition.any_deps_match(_NOT_MISSING).allow(_PREDICTED)
    | dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.any_deps_updated().ignore(_EVERY_TRAINING).since_last_handled()
    ).allow(_BATCH)
)
"""Of a period's outcomes that are missing: its labels have not come, or something was predicted, or the batch is about to predict."""

ON_NEW_OUTCOMES = (
    (
        (_OTHER_CONTENT.allow(_OUTCOMES) | _FIRST_TIME.allow(_OUTCOMES)).since_last_handled()
        & _IDLE
        & ~_STOPPED
        & dg.AutomationCondition.any_deps_match(_NOT_MISSING).allow(_OUTCOMES)
        & ~dg.AutomationCondition.any_deps_match(_AWAITED).allow(_OUTCOMES)
    )
    .ignore(_EVERY_TRAINING)
    .with_label("follow_outcomes")
)
"""Of reports: once the window is over, with the periods of it in which anything was predicted."""


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
        tags=FOLLOWS_RUNS,
        # What follows in one tick has different partitions, so that its run is one of Dagster's implicit job.
        run_tags={PURPOSE_TAG: "following new partitions"},
    )
