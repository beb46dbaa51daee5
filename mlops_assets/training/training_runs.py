"""MLflow runs of a training: the run behind a version, the trials of its search below it, and the dataset it read."""

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlops_assets.clients.model_registry import ModelRegistry

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mlops_assets.ml.search import TrialResult

MAKER_TAG, SOLUTION_TAG = "dagster_run_id", "solution"
"""On the run of a training: the run of Dagster that made it, and the solution."""

_PARENT_TAG = "mlflow.parentRunId"
_TRIAL_TAG = "trial"
_MOST_TRIALS = 5000


def unfinished_run(registry: ModelRegistry, solution: str, tags: Mapping[str, str]) -> str | None:
    """The run with these tags that a dead process left open, or None."""
    experiment = registry.client.get_experiment_by_name(solution)
    if experiment is None:
        return None
    conditions = ["attributes.status = 'RUNNING'", *(f"tags.`{key}` = '{value}'" for key, value in tags.items())]
    runs = registry.client.search_runs([experiment.experiment_id], " AND ".join(conditions), max_results=1)
    return runs[0].info.run_id if runs else None


def runs_of_trainings(registry: ModelRegistry, solution: str) -> "list[Run]":
    """The runs of all trainings of the solution that were not deleted; not the trials below them, nor what a person recorded."""
    experiment = registry.client.get_experiment_by_name(solution)
    if experiment is None:
        return []
    return registry.find_runs([experiment.experiment_id], f"tags.`{SOLUTION_TAG}` = '{solution}'", are_deleted=False)


def trials_below(registry: ModelRegistry, run: "Run") -> "list[Run]":
    """The trials of the search of a run that were not deleted."""
    conditions = f"tags.`{_PARENT_TAG}` = '{run.info.run_id}'"
    return registry.find_runs([run.info.experiment_id], conditions, are_deleted=False)


def logged_trials(registry: ModelRegistry, parent: str) -> set[int]:
    """Places of the trials that are recorded below the run `parent`."""
    experiment = registry.client.get_run(parent).info.experiment_id
    runs = registry.client.search_runs([experiment], f"tags.`{_PARENT_TAG}` = '{parent}'", max_results=_MOST_TRIALS)
    return {int(run.data.tags[_TRIAL_TAG]) for run in runs}


def log_trial(registry: ModelRegistry, parent: str, trial: "TrialResult", metric: str) -> None:
    """Record one trial as a finished run below `parent`: its parameters, the metric of every fold, and their mean."""
    from mlflow.entities import Metric, Param, RunTag

    experiment = registry.client.get_run(parent).info.experiment_id
    moment = int(time.time() * 1000)
    began = moment - int(trial.seconds * 1000)
    name = f"trial {trial.ordinal + 1}" + (" (default)" if trial.ordinal == 0 else "")
    run_id = registry.client.create_run(
        experiment, start_time=began, run_name=name, tags={_PARENT_TAG: parent, _TRIAL_TAG: str(trial.ordinal)}
    ).info.run_id
    metrics = [Metric(f"fold_{metric}", score, moment, fold) for fold, score in enumerate(trial.fold_scores)]
    metrics.append(Metric("seconds", trial.seconds, moment, 0))
    if trial.value is not None:
        metrics.append(Metric(metric, trial.value, moment, 0))
    parameters = {"estimator": trial.step.class_path, **trial.step.parameters}
    registry.client.log_batch(
        run_id,
        metrics=metrics,
        params=[Param(key, str(value)) for key, value in parameters.items()],
        tags=[RunTag("state", trial.state), *([RunTag("error", trial.error)] if trial.error else [])],
    )
    registry.client.set_terminated(run_id, status="FAILED" if trial.state == "failed" else "FINISHED")


def log_dataset(
    registry: ModelRegistry, run_id: str, *, table: str, fingerprint: str, source: Mapping[str, Any], profile: Mapping[str, Any]
) -> None:
    """Record the training dataset as the input of a run: the lake table, its fingerprint, and where in the lake it came from."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source_text, profile_text = (json.dumps(content, ensure_ascii=False) for content in (source, profile))
    dataset = Dataset(name=table, digest=fingerprint, source_type="ducklake", source=source_text, profile=profile_text)
    registry.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
