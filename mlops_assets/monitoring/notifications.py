"""Notifications about runs, models and checks, and the two sensors that send them.

They read what Dagster recorded, so that no asset has to think of notifications, and no failure to notify can touch a run.
"""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import dagster as dg

from mlops_assets.clients.notifier import Notification, Notifier
from mlops_assets.core.keys import (
    CHECK_EVENT_TAG,
    DEPLOYMENT,
    FOLLOWS_RUNS,
    MODEL,
    RETRAINING_DECISION,
    SEGMENT_STAGES,
    SOLUTION_TAG,
    STAGE_TAG,
)
from mlops_assets.core.settings import Settings, sensor_interval
from mlops_assets.core.shared_sensors import events_between
from mlops_assets.deployment.approval import APPROVAL
from mlops_assets.monitoring.retraining_sensor import ACTOR, ATTEMPTED, OUTCOME, REASON
from mlops_assets.predictions.input_arrival import INPUTS_ARRIVED
from mlops_assets.runs.stuck import Blockage

_INTERVAL_SECONDS = 120
"""They follow runs: they are evaluated at once when one has ended."""
_TICK_SECONDS = 30.0
_MEANINGS = {"gate_refused": "\nThe candidate is refused: it is not deployed."}
_FAILED_CHECK = "DagsterAssetCheckFailedError"
_WILL_RETRY_TAG = "dagster/will_retry"

_MODELS = (MODEL, SEGMENT_STAGES[MODEL])
_DEPLOYMENTS = (DEPLOYMENT, SEGMENT_STAGES[DEPLOYMENT])


def build_notification_sensors() -> list[dg.SensorDefinition]:
    """The sensor of failed runs, and that of models and checks. Both are on: they launch nothing."""

    @dg.run_failure_sensor(
        name="run_failures",
        description="Notifies of every run that failed, with its cause.",
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        tags=FOLLOWS_RUNS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def run_failures(
        context: dg.RunFailureSensorContext, settings: dg.ResourceParam[Settings], notifier: dg.ResourceParam[Notifier]
    ) -> None:
        tags = _tags(context.repository_def.asset_graph) if context.repository_def else {}
        notifier.notify(failed_run_notification(context, settings, tags), seconds=_TICK_SECONDS)

    @dg.sensor(
        name="notifications",
        description="Notifies of trainings, promotions, rollbacks, what a person has to decide, refused candidates and failed checks.",
        minimum_interval_seconds=sensor_interval(_INTERVAL_SECONDS),
        tags=FOLLOWS_RUNS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def notifications(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings], notifier: dg.ResourceParam[Notifier]
    ) -> dg.SkipReason:
        graph = context.repository_def.asset_graph if context.repository_def else None
        if graph is None:
            return dg.SkipReason("the code location is not loaded")
        last = context.instance.event_log_storage.get_maximum_record_id() or 0
        # A cursor of an earlier release may lack the position.
        position = json.loads(context.cursor).get("last") if context.cursor else None
        if position == last:
            return dg.SkipReason("nothing happened")
        cursor = json.dumps({"last": last})
        if position is None:
            # What happened before is no news.
            context.update_cursor(cursor)
            return dg.SkipReason("begins to listen")
        tags = _tags(graph)
        candidates = [
            materialization_notification(settings, tags[key], key, record)
            for key, record in _materializations(context.instance, tags, after=position, last=last)
        ]
        candidates += check_notifications(
            settings, tags, _newest_evaluations(context.instance, graph.asset_check_keys, after=position, last=last)
        )
        pending = [notification for notification in candidates if notification is not None]
        dealt_with = notifier.notify(pending, seconds=_TICK_SECONDS)
        if dealt_with == len(pending):
            context.update_cursor(cursor)
        return dg.SkipReason(f"{dealt_with} of {len(pending)} notifications dealt with")

    return [run_failures, notifications]


def failed_run_notification(
    context: dg.RunFailureSensorContext, settings: Settings, tags: Mapping[dg.AssetKey, Mapping[str, str]]
) -> list[Notification]:
    """Build the notifications of a failed run: its cause, or the checks that stopped it.

    The other sensor tells of checks too, of their latest results: one that was repaired before its tick is told here alone.
    """
    causes, classes = [], []
    for event in context.get_step_failure_events():
        failure = event.step_failure_data
        innermost = failure.error
        while innermost is not None and innermost.cause is not None:
            innermost = innermost.cause
        classes.append(innermost.cls_name if innermost else None)
        described = failure.user_failure_data.description if failure.user_failure_data else None
        causes.append(f"{event.step_key}: {described or (innermost.message if innermost else '')}".strip())
    run = context.dagster_run
    if causes and set(classes) == {_FAILED_CHECK}:
        logged = context.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        evaluations = [entry.dagster_event.asset_check_evaluation_data for entry in logged if entry.dagster_event]
        return list(check_notifications(settings, tags, [(run.run_id, evaluation) for evaluation in evaluations]))
    # The record, not the run of the event: Dagster decides after the failure whether it tries again.
    record = context.instance.get_run_by_id(run.run_id)
    again = record is not None and record.tags.get(_WILL_RETRY_TAG) == "true"
    failed = Notification(
        event="run_failed",
        severity="warning" if again else "failure",
        title=f"A run of {_run_name(run)} {'was interrupted and is tried again' if again else 'failed'}",
        # Its first line: what a worker printed last stays in the event log.
        body="\n".join(causes) or (context.failure_event.message or "without a cause in its log").partition("\n")[0],
        identity=f"run_failed {run.run_id}",
        links=_run_link(settings, run.run_id),
    )
    return [failed]


def materialization_notification(
    settings: Settings, tags: Mapping[str, str], key: dg.AssetKey, record: dg.EventLogRecord
) -> Notification | None:
    """Build the notification of a fitted model, a deployment that changed what predicts, or a decision that asks; None for any other."""
    event = record.asset_materialization
    metadata = {name: entry.value for name, entry in event.metadata.items()} if event else {}
    solution, stage = tags[SOLUTION_TAG], tags[STAGE_TAG]
    links = {
        **_run_link(settings, record.run_id),
        "History": f"{settings.dagster_url}/assets/{'/'.join(key.path)}",
        **({"MLflow": str(metadata["mlflow"])} if "mlflow" in metadata else {}),
    }
    version = metadata.get("model_version")
    if stage in _MODELS and not metadata.get("reused"):
        return Notification(
            event="retrained",
            severity="info",
            title=f"{solution}: version {version} was {'recalibrated' if 'recalibration' in metadata else 'trained'} for {record.partition_key}",
            body="It predicts when its gates pass.",
            identity=f"retrained {solution} {version}",
            links=links,
        )
    if stage in _DEPLOYMENTS and metadata.get("changed"):
        before = metadata.get("version_before")
        back = isinstance(before, int) and isinstance(version, int) and version < before
        followed = f", after version {before}" if before is not None else ""
        by = "after a retraining decision" if metadata["actor"] == ACTOR else f"by {metadata['actor']}"
        return Notification(
            event="rolled_back" if back else "promoted",
            severity="warning" if back else "success",
            title=f"{solution}: version {version} predicts now{followed}",
            body=f"{'Rolled back' if back else 'Promoted'} {by}: {metadata['reason']}",
            identity=f"deployed {solution} {record.storage_id}",
            links=links,
        )
    if stage == RETRAINING_DECISION and metadata.get(OUTCOME) == "ask":
        return Notification(
            event="asks",
            severity="warning",
            title=f"{solution}: a person has to decide about version {version}",
            body=f"{metadata[REASON]}. Train or deploy by hand; until then nothing is trained: mlops history {solution}",
            # Each window decides anew. What was tried is told once.
            identity=f"asks {solution} {version} {metadata.get(ATTEMPTED)}",
            links=links,
        )
    return None


def check_notifications(
    settings: Settings,
    tags: Mapping[dg.AssetKey, Mapping[str, str]],
    evaluated: Sequence[tuple[str, dg.AssetCheckEvaluation | None]],
) -> Iterator[Notification]:
    """Build the notifications of the evaluations by run that failed: one notification an asset and run, the same whoever asks.

    Its title names the checks that block when there are any; its body names all of them.
    """
    failed: dict[tuple[dg.AssetKey, str], list[dg.AssetCheckEvaluation]] = {}
    for run_id, evaluation in evaluated:
        if evaluation is not None and not evaluation.passed:
            failed.setdefault((evaluation.asset_key, run_id), []).append(evaluation)
    for (key, run_id), evaluations in sorted(failed.items(), key=lambda item: item[0]):
        yield from (
            _approval_notification(settings, key, run_id, each) for each in evaluations if each.check_name == APPROVAL.name
        )
        evaluations = [evaluation for evaluation in evaluations if evaluation.check_name != APPROVAL.name]
        blocking = [evaluation for evaluation in evaluations if evaluation.severity == dg.AssetCheckSeverity.ERROR]
        event = tags.get(key, {}).get(CHECK_EVENT_TAG, "check_failed")
        if event == "check_failed" and not blocking:
            # Of a stage without an event of its own one warning is told: that of a source that has not come.
            evaluations = [evaluation for evaluation in evaluations if evaluation.check_name == INPUTS_ARRIVED.name]
            event = "source_missing"
        if not evaluations:
            continue
        name = "/".join(key.path)
        described = sorted(
            f"{evaluation.check_name}{f' of {evaluation.partition}' if evaluation.partition else ''}: {evaluation.description or 'failed'}"
            for evaluation in evaluations
        )
        yield Notification(
            event=event,
            severity="failure" if blocking else "warning",
            title=f"{name}: {', '.join(sorted({evaluation.check_name for evaluation in blocking or evaluations}))} failed",
            body="\n".join(described) + ("\nWhat is downstream was stopped." if blocking else _MEANINGS.get(event, "")),
            # A result that a sensor recorded is of no run.
            identity=f"checks {name} {run_id or '; '.join(described)}",
            links={
                **(_run_link(settings, run_id) if run_id else {}),
                "Checks": f"{settings.dagster_url}/assets/{name}?view=checks",
            },
        )


def _approval_notification(
    settings: Settings, key: dg.AssetKey, run_id: str, evaluation: dg.AssetCheckEvaluation
) -> Notification:
    """Build the notification of a version that waits for a person, or that one refused."""
    values = {name: entry.value for name, entry in evaluation.metadata.items()}
    solution, version, is_refused = key.path[0], values["model_version"], values["decision"] == "refused"
    return Notification(
        event="approval_refused" if is_refused else "waits_for_approval",
        severity="warning",
        title=f"{solution}: version {version} {'was refused' if is_refused else 'waits for approval'}",
        body=f"{evaluation.description}\nAsked for by {values['asked_by']}: {values['reason']}. The champion stays.",
        identity=f"approval {solution} {version} {values['decision']} {run_id}",
        links={**_run_link(settings, run_id), "Checks": f"{settings.dagster_url}/assets/{'/'.join(key.path)}?view=checks"},
    )


def blockage_notification(settings: Settings, stuck: Blockage) -> Notification:
    """Build the notification of a run or a pool that does not go on."""
    behind = "".join(f"\n{run_id}: {settings.dagster_url}/runs/{run_id}" for run_id in stuck.behind)
    waited = f" for {stuck.seconds / 60:.0f} minutes" if stuck.kind == "queued" else ""
    return Notification(
        event="stuck",
        severity="warning",
        title=f"{stuck.name} {'waits' if stuck.kind == 'queued' else 'stands still'}{waited}",
        body=f"{stuck.reason}{behind}\nAll that stands still: mlops status",
        identity=f"stuck {stuck.kind} {stuck.run_id} {stuck.name}",
        links=_run_link(settings, stuck.run_id),
    )


def _tags(graph: Any) -> dict[dg.AssetKey, Mapping[str, str]]:
    return {key: graph.get(key).tags for key in graph.get_all_asset_keys()}


def _newest_evaluations(
    instance: dg.DagsterInstance, keys: Set[dg.AssetCheckKey], *, after: int, last: int
) -> list[tuple[str, dg.AssetCheckEvaluation]]:
    """The newest result of each check and partition among the events behind `after` up to `last`, with its run."""
    newest: dict[tuple[dg.AssetCheckKey, str | None], tuple[str, dg.AssetCheckEvaluation]] = {}
    for record in events_between(instance, dg.DagsterEventType.ASSET_CHECK_EVALUATION, after=after, last=last):
        evaluation = record.event_log_entry.asset_check_evaluation
        if evaluation is not None and evaluation.asset_check_key in keys:
            newest[evaluation.asset_check_key, evaluation.partition] = (record.run_id, evaluation)
    return list(newest.values())


def _materializations(
    instance: dg.DagsterInstance, tags: Mapping[dg.AssetKey, Mapping[str, str]], *, after: int, last: int
) -> Iterator[tuple[dg.AssetKey, dg.EventLogRecord]]:
    """The materializations of models, deployments and decisions among the events behind `after` up to `last`, oldest first."""
    for record in events_between(instance, dg.DagsterEventType.ASSET_MATERIALIZATION, after=after, last=last):
        key = record.asset_key
        if key is not None and tags.get(key, {}).get(STAGE_TAG) in {*_MODELS, *_DEPLOYMENTS, RETRAINING_DECISION}:
            yield key, record


def _run_name(run: dg.DagsterRun) -> str:
    if run.asset_selection:
        return ", ".join(sorted("/".join(key.path) for key in run.asset_selection)[:3])
    return run.job_name


def _run_link(settings: Settings, run_id: str) -> dict[str, str]:
    return {"Run": f"{settings.dagster_url}/runs/{run_id}"}
