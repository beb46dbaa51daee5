"""All stages of a solution, in the order in which they follow each other.

A stage is added here and nowhere else, but for the reports of monitors, which are added in `monitoring/monitors.py`.
"""

from mlops_assets.core.conditions import (
    ON_NEW_OUTCOMES,
    ON_NEW_PARTITIONED_INPUTS,
    ON_NEW_PREDICTIONS,
    ON_NEW_REPORTS,
    on_missing_predictions,
)
from mlops_assets.core.freshness import model_freshness, never_stale, partition_freshness, window_freshness
from mlops_assets.core.keys import (
    CHALLENGER,
    DEPLOYMENT,
    EVALUATION,
    MODEL,
    MONITORING_REPORT,
    ONLINE_FEATURES,
    OUTCOMES,
    PREDICTION_LOG,
    PREDICTIONS,
    RETRAINING_DECISION,
    SHADOW_PREDICTIONS,
    TRAINING_DATASET,
)
from mlops_assets.deployment.challenger import build_challenger
from mlops_assets.deployment.deployment import build_deployment
from mlops_assets.features.online_features import build_online_features
from mlops_assets.monitoring.monitor import MonitorOfSolution, builtin_monitors, further_monitors
from mlops_assets.monitoring.monitoring_report import build_monitoring_report
from mlops_assets.monitoring.report_asset import build_report
from mlops_assets.monitoring.retraining_decision import build_retraining_decision
from mlops_assets.predictions.outcomes import build_outcomes
from mlops_assets.predictions.prediction_log import build_prediction_log
from mlops_assets.predictions.predictions import build_predictions
from mlops_assets.schema.configuration_errors import ErrorCollector, nearest
from mlops_assets.schema.solution import Solution
from mlops_assets.stages.stage import Job, Stage
from mlops_assets.training.evaluation import build_evaluation
from mlops_assets.training.model import build_model
from mlops_assets.training.training_dataset import build_training_dataset


def _report(of_solution: MonitorOfSolution) -> Stage:
    """The stage of a monitor."""
    return Stage(
        name=of_solution.stage,
        build=lambda inputs: build_report(inputs, of_solution),
        job="monitoring",
        condition=ON_NEW_OUTCOMES,
        freshness=window_freshness,
        check_event=of_solution.short_name,
    )


STAGES = (
    Stage(
        name=TRAINING_DATASET,
        build=build_training_dataset,
        job="training",
        condition=None,
        freshness=never_stale,
        check_event=None,
    ),
    Stage(
        name=MODEL,
        build=build_model,
        job="training",
        condition=None,
        freshness=model_freshness,
        check_event="gate_refused",
    ),
    Stage(
        name=EVALUATION,
        build=build_evaluation,
        job="training",
        condition=None,
        freshness=never_stale,
        check_event="gate_refused",
    ),
    Stage(
        name=ONLINE_FEATURES,
        build=build_online_features,
        job="training",
        condition=ON_NEW_PARTITIONED_INPUTS,
        freshness=partition_freshness,
        check_event=None,
    ),
    Stage(
        name=DEPLOYMENT,
        build=build_deployment,
        job="training",
        condition=None,
        freshness=never_stale,
        check_event="served_version_differs",
    ),
    Stage(
        name=CHALLENGER,
        build=build_challenger,
        job=None,
        condition=None,
        freshness=never_stale,
        check_event=None,
    ),
    Stage(
        name=PREDICTIONS,
        build=build_predictions,
        job="scoring",
        condition=lambda inputs: on_missing_predictions(inputs.late_views),
        freshness=partition_freshness,
        check_event=None,
    ),
    Stage(
        name=PREDICTION_LOG,
        also=(SHADOW_PREDICTIONS,),
        build=build_prediction_log,
        job=None,
        condition=None,
        freshness=never_stale,
        check_event=None,
    ),
    Stage(
        name=OUTCOMES,
        build=build_outcomes,
        job="scoring",
        condition=ON_NEW_PREDICTIONS,
        freshness=partition_freshness,
        check_event=None,
    ),
    *map(_report, builtin_monitors()),
    Stage(
        name=MONITORING_REPORT,
        build=build_monitoring_report,
        job="monitoring",
        condition=ON_NEW_REPORTS,
        freshness=window_freshness,
        check_event=None,
    ),
    Stage(
        name=RETRAINING_DECISION,
        build=build_retraining_decision,
        job="monitoring",
        condition=ON_NEW_REPORTS,
        freshness=window_freshness,
        check_event=None,
    ),
)


def stages(solution: Solution) -> tuple[Stage, ...]:
    """The stages of `solution`: with the reports of the monitors that it names after the others."""
    last = max(position for position, stage in enumerate(STAGES) if stage.condition is ON_NEW_OUTCOMES)
    return (*STAGES[: last + 1], *map(_report, further_monitors(solution)), *STAGES[last + 1 :])


def stages_of(job: Job, solution: Solution) -> tuple[str, ...]:
    """The names of the stages of `solution` that a job runs."""
    return tuple(stage.name for stage in stages(solution) if stage.job == job)


def check_resources(solution: Solution) -> None:
    """Raise ConfigurationError where `resources` name a stage that `solution` has not."""
    errors, names = ErrorCollector(), [stage.name for stage in stages(solution)]
    for name in solution.resources:
        if name not in names:
            errors.add(("resources", name), f"the solution has no stage {name!r}; {nearest(name, names)}")
    errors.raise_errors()
