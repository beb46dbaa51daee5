"""Acceptance of a version: whether its evaluation passed every gate, by its signed record and Dagster's event log."""

import dagster as dg

from mlops_assets.clients.bundle_record import EvidenceError, accepted_record
from mlops_assets.clients.registered_model import TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.keys import DEPLOYMENT, EVALUATION, MODEL, SEGMENT, SEGMENT_STAGES, TRAINING_DATE, stage_key

GATES_PASSED_METADATA = "gates_passed"
"""Metadata of an evaluation: whether the version passed every gate."""

_MOST_EVENTS = 1000


def gates_problem(instance: dg.DagsterInstance, signer: Signer, model: RegisteredModel) -> str | None:
    """Return the reason why `model` may not predict, with the remedy; None when its evaluation signed that it passed every gate.

    A signature that a later evaluation withdrew, and that somebody put back, does not count: Dagster's event log has the rejection.
    """
    try:
        accepted_record(signer, model)
    except EvidenceError as error:
        return str(error)
    evaluation = next(iter(_materializations(instance, model, EVALUATION)), None)
    if evaluation is not None and _metadata(evaluation).get(GATES_PASSED_METADATA) is False:
        return (
            f"{model} has not passed its gates (its newest evaluation, run {evaluation.run_id}, rejected it; the tags of its acceptance "
            f"are older{model.failed_gates}): read the checks of that run."
        )
    return None


def was_deployed(instance: dg.DagsterInstance, model: RegisteredModel) -> bool:
    """Whether `model` predicted before, as Dagster's event log has it."""
    # One without a run was reported by somebody, and deployed nothing.
    return any(record.run_id for record in _materializations(instance, model, DEPLOYMENT))


def training_runs(instance: dg.DagsterInstance, model: RegisteredModel) -> list[str]:
    """The ids of the runs that trained `model`, or found it again, newest first, as Dagster's event log has them."""
    return list(dict.fromkeys(record.run_id for record in _materializations(instance, model, MODEL)))


def _materializations(instance: dg.DagsterInstance, model: RegisteredModel, stage: str) -> list[dg.EventLogRecord]:
    """The materializations of `stage` that are about `model`, newest first."""
    date, segment = model.tags[TRAINING_DATE_TAG], model.segment
    records_filter = dg.AssetRecordsFilter(
        asset_key=stage_key(model.solution, stage if segment is None else SEGMENT_STAGES[stage]),
        asset_partitions=[str(date if segment is None else dg.MultiPartitionKey({SEGMENT: segment, TRAINING_DATE: date}))],
    )
    records = instance.fetch_materializations(records_filter, limit=_MOST_EVENTS).records
    return [record for record in records if _metadata(record).get("model_version") == model.version]


def _metadata(record: dg.EventLogRecord) -> dict[str, object]:
    materialization = record.asset_materialization
    return {name: entry.value for name, entry in materialization.metadata.items()} if materialization else {}
