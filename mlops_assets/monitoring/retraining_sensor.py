"""The sensor that acts on retraining decisions: it launches the training that the newest one asks for, once."""

import dagster as dg
from dagster import DagsterInstance, RunsFilter

from mlops_assets.core.keys import DEPLOYMENT, MODEL, RETRAINING_DECISION, job_name, stage_key
from mlops_assets.core.settings import sensor_interval
from mlops_assets.runs.unfinished import UNFINISHED

OUTCOME, REASON, TRAIN_FOR, DECISION = "outcome", "reason", "train_for", "decision"
"""Metadata of a decision: what follows, why, for which training date, and the identity of its content."""

DECISION_TAG = "mlops/retraining_decision"
"""On the run of a training: the identity of the decision that it follows."""

ACTOR = "retraining"
"""Who deploys a version that was trained because of a decision."""

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
        if run.job_name == job_name(solution, "training") or model in (run.asset_selection or ()):
            return run.run_id
    return None


def build_retraining_sensor(solution: str) -> dg.SensorDefinition:
    """The sensor of one solution.

    Of the decisions since the last tick it looks at the newest window only, and at none before a window that it looked at already:
    the others were overtaken. A decision that cannot be followed because a training runs is dropped, not kept: the next window
    decides anew, in knowledge of that training. The run key is the identity of the decision's content, so that neither a repeated
    tick nor a decision made again launches a second run.
    """
    key = stage_key(solution, RETRAINING_DECISION)
    deployment = stage_key(solution, DEPLOYMENT).to_python_identifier()

    @dg.sensor(
        name=sensor_name(solution),
        job_name=job_name(solution, "training"),
        description="Launches the training that the newest retraining decision asks for.",
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
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
        if decision[OUTCOME] != "retrain":
            return dg.SensorResult(skip_reason=f"{window}: {decision[OUTCOME]}, {decision[REASON]}", cursor=cursor)
        if running := running_training(context.instance, solution):
            reason = f"{window}: not followed, the training {running} is running; the next window decides anew"
            return dg.SensorResult(skip_reason=reason, cursor=cursor)
        request = dg.RunRequest(
            run_key=decision[DECISION],
            partition_key=decision[TRAIN_FOR],
            tags={DECISION_TAG: decision[DECISION]},
            run_config={"ops": {deployment: {"config": {"actor": ACTOR, "reason": decision[REASON]}}}},
        )
        return dg.SensorResult(run_requests=[request], cursor=cursor)

    return retraining
