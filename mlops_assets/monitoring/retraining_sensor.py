"""The sensor that acts on retraining decisions: it launches the run that the newest one asks for, once."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster import DagsterInstance, RunsFilter
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mlops_assets.core.deployment_target import DeploymentTarget
from mlops_assets.core.keys import DEPLOYMENT, FOLLOWS_RUNS, MODEL, MUST_GAIN_TAG, RETRAINING_DECISION, job_name, stage_key
from mlops_assets.core.settings import sensor_interval
from mlops_assets.runs.unfinished import UNFINISHED

OUTCOME, REASON, TRAIN_FOR, DECISION, ATTEMPTED = "outcome", "reason", "train_for", "decision", "attempted"
"""Metadata of a decision: what follows, why, for which training date, the identity of its content, and the last training before it."""

VERSION, RETURN_TO, RETURN_PARTITION = "model_version", "return_to", "return_partition"
"""Metadata of a decision: the version that it is about, and of a rollback the version before it with its partition."""

DECISION_TAG = "mlops/retraining_decision"
"""On the run that follows a decision: the identity of that decision."""

MUST_GAIN = "must_gain"
"""Metadata of a decision: whether a candidate must be better than the version beyond chance."""

ACTOR = "retraining"
"""Who deploys a version because of a decision."""

FOLLOWED = ("retrain", "recalibrate", "roll back")
"""The outcomes that a run follows."""

_TRAINING = "training"
_INTERVAL_SECONDS = 10
_MOST_DECISIONS = 1000

RETRAINING_SUFFIX = "_retraining"
"""How the name of every retraining sensor ends."""


def sensor_name(solution: str) -> str:
    """Name of the sensor of one solution."""
    return f"{solution}{RETRAINING_SUFFIX}"


def running_training(instance: DagsterInstance, solution: str) -> str | None:
    """The id of a run that trains the solution and has not ended, or None."""
    model = stage_key(solution, MODEL)
    for run in instance.get_runs(RunsFilter(statuses=UNFINISHED)):
        if run.job_name == job_name(solution, _TRAINING) or model in (run.asset_selection or ()):
            return run.run_id
    return None


def build_retraining_sensor(target: DeploymentTarget, jobs: Sequence[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    """The sensor of the solution of `target`, whose training and deployment are among `jobs`.

    Of the decisions since the last tick it looks at the newest window only, and at none before a window that it looked at already:
    the others were overtaken. A decision that cannot be followed is dropped, not kept, because a training runs or another version predicts by
    now: the next window decides anew, in knowledge of that. The run key is the identity of the decision's content, so that neither a repeated
    tick nor a decision made again launches a second run.
    """
    key = stage_key(target.solution, RETRAINING_DECISION)
    launched = {job_name(target.solution, purpose) for purpose in (_TRAINING, DEPLOYMENT)}

    @dg.sensor(
        name=sensor_name(target.solution),
        jobs=[job for job in jobs if job.name in launched],
        description="Launches the training, the recalibration or the rollback that the newest retraining decision asks for.",
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        tags=FOLLOWS_RUNS,
        # Off until `mlops automation on`: docs/retraining.md.
        default_status=dg.DefaultSensorStatus.STOPPED,
    )
    def retraining(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        position, _, decided = (context.cursor or "0").partition(" ")
        unseen = dg.AssetRecordsFilter(asset_key=key, after_storage_id=int(position))
        records = context.instance.fetch_materializations(unseen, limit=_MOST_DECISIONS).records
        if not records:
            return dg.SkipReason("no decision since the last tick")
        newest = max(records, key=lambda record: (str(record.partition_key), record.storage_id))
        window = str(newest.partition_key)
        cursor = f"{max(record.storage_id for record in records)} {max(window, decided)}"
        if window < decided:
            return dg.SensorResult(skip_reason=f"{window}: overtaken by the decision of {decided}", cursor=cursor)
        materialization = newest.asset_materialization
        decision = {name: str(entry.value) for name, entry in materialization.metadata.items()} if materialization else {}
        outcome = decision[OUTCOME]
        if outcome not in FOLLOWED:
            return dg.SensorResult(skip_reason=f"{window}: {outcome}, {decision[REASON]}", cursor=cursor)
        if obstacle := _obstacle(context.instance, target, decision):
            return dg.SensorResult(skip_reason=f"{window}: not followed, {obstacle}; the next window decides anew", cursor=cursor)
        return dg.SensorResult(run_requests=[_request(target, decision)], cursor=cursor)

    return retraining


def _obstacle(instance: DagsterInstance, target: DeploymentTarget, decision: Mapping[str, str]) -> str | None:
    """What is against following the decision now; a rollback does not wait for a training."""
    if decision[OUTCOME] != "roll back" and (running := running_training(instance, target.solution)):
        return f"the training {running} is running"
    deployed = target.newest_deployment(instance)
    if decision[OUTCOME] != "retrain" and deployed is not None and str(deployed.version) != decision[VERSION]:
        return f"version {deployed.version} predicts by now"
    return None


def _request(target: DeploymentTarget, decision: Mapping[str, str]) -> dg.RunRequest:
    """The run that follows the decision."""
    outcome, solution = decision[OUTCOME], target.solution
    deployment: dict[str, Any] = {"actor": ACTOR, "reason": decision[REASON]}
    configuration = {target.key: deployment}
    if outcome == "roll back":
        deployment["version"] = int(decision[RETURN_TO])
    if outcome == "recalibrate":
        configuration[stage_key(solution, MODEL)] = {"recalibrate": int(decision[VERSION])}
    return dg.RunRequest(
        run_key=decision[DECISION],
        job_name=job_name(solution, DEPLOYMENT if outcome == "roll back" else _TRAINING),
        partition_key=decision[RETURN_PARTITION if outcome == "roll back" else TRAIN_FOR],
        tags={DECISION_TAG: decision[DECISION], **({MUST_GAIN_TAG: "true"} if decision.get(MUST_GAIN) == "True" else {})},
        run_config={"ops": {key.to_python_identifier(): {"config": values} for key, values in configuration.items()}},
    )
