"""Acceptance of a version: whether its evaluation passed every gate, by its signed record and Dagster's event log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mlops_assets.clients.registered_model import TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.keys import DEPLOYMENT, EVALUATION, MODEL, SEGMENT, SEGMENT_STAGES, TRAINING_DATE, stage_key
from mlops_assets.training.evidence import of_version, predicted_before, rejection

_MOST_EVENTS = 1000


@dataclass(frozen=True)
class _StoredEvent:
    """A materialization as Dagster's storage has it."""

    run_id: str
    metadata: Mapping[str, Any]


def gates_problem(instance: dg.DagsterInstance, signer: Signer, model: RegisteredModel) -> str | None:
    """Return the reason why `model` may not predict, with the remedy; None when its evaluation signed that it passed every gate."""
    return rejection(signer, model, _materializations(instance, model, EVALUATION))


def was_deployed(instance: dg.DagsterInstance, model: RegisteredModel) -> bool:
    """Whether `model` predicted before, as Dagster's event log has it."""
    return predicted_before(model, _materializations(instance, model, DEPLOYMENT))


def training_runs(instance: dg.DagsterInstance, model: RegisteredModel) -> list[str]:
    """The ids of the runs that trained `model`, or found it again, newest first, as Dagster's event log has them."""
    return list(dict.fromkeys(event.run_id for event in of_version(model, _materializations(instance, model, MODEL))))


def _materializations(instance: dg.DagsterInstance, model: RegisteredModel, stage: str) -> list[_StoredEvent]:
    """The materializations of `stage` for the partition of `model`, newest first."""
    date, segment = model.tags[TRAINING_DATE_TAG], model.segment
    records_filter = dg.AssetRecordsFilter(
        asset_key=stage_key(model.solution, stage if segment is None else SEGMENT_STAGES[stage]),
        asset_partitions=[str(date if segment is None else dg.MultiPartitionKey({SEGMENT: segment, TRAINING_DATE: date}))],
    )
    records = instance.fetch_materializations(records_filter, limit=_MOST_EVENTS).records
    return [_StoredEvent(record.run_id, _metadata(record)) for record in records]


def _metadata(record: dg.EventLogRecord) -> dict[str, Any]:
    materialization = record.asset_materialization
    return {name: entry.value for name, entry in materialization.metadata.items()} if materialization else {}
