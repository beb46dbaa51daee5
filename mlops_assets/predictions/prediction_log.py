"""`prediction_log`: the predictions of the servers, from the event stream into the lake, each exactly once. One partition a period.

A record is acknowledged after the transaction that holds it: what is killed in between comes again and is found to be there.
A run takes what waits, whatever partitions that is of, and records a materialization of each of them, so that others can follow.
Predictions that nobody was answered with (a challenger in the shadow) come by the same stream: the step writes them to
`shadow_predictions`, an asset of its own.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

# Dagster has no public name for the tag.
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.core import check_rules
from mlops_assets.core.check_rules import MOST_EXAMPLES
from mlops_assets.core.keys import CHALLENGER, PREDICTION_LOG, SHADOW_PREDICTIONS
from mlops_assets.core.prediction_columns import PREDICTION_DESCRIPTIONS
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.partition_range import PartitionRange
from mlops_assets.lake.sql import quote
from mlops_assets.lake.tables import counted_fingerprint, current_snapshot, table_exists
from mlops_assets.predictions.all_predictions import update_view
from mlops_assets.predictions.prediction_checks import check_logged_once, check_within_partitions
from mlops_assets.predictions.prediction_records import RecordRows
from mlops_assets.runs import slots
from mlops_assets.schema.column_names import PREDICTION_ID
from mlops_assets.stages.column_lineage import logged_lineage
from mlops_assets.stages.execution import RETRIES, schema_change_metadata, table_schema
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.stages.partition_versions import PARTITION_FINGERPRINT

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from mlops_assets.serving.prediction_record import PredictionRecord

_DESCRIPTIONS = {
    PREDICTION_LOG: "What the servers answered, online and to events, with the features that they saw.",
    SHADOW_PREDICTIONS: "What a challenger in the shadow predicted for the same requests: nobody was answered with it.",
}
"""Stages that one step writes."""

BATCH_RECORDS = 5000
_ACKNOWLEDGE_SECONDS = 60.0
"""After a kill of NATS or of a run, what the run had taken waits so long. What comes again meanwhile is found to be in the lake."""
_WAIT_SECONDS = 2.0


@dataclass
class _Ingested:
    """The records that one run took from the event stream, counted."""

    rows: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """How many records for each reason."""
    unknown_features: set[str] = field(default_factory=set)
    days: dict[str, set[date]] = field(default_factory=lambda: defaultdict(set))

    def take_days(self) -> dict[str, set[date]]:
        """Stage -> the dates of the partitions of what was taken since the last call, also of what was in the lake already."""
        days, self.days = self.days, defaultdict(set)
        return days


def build_prediction_log(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The prediction log of one solution's servers, and the predictions of its challengers in the shadow."""
    every, challenger = dg.AllPartitionMapping(), dg.AssetDep(inputs.key(CHALLENGER))
    champions = [dg.AssetDep(deployment, partition_mapping=every) for deployment in inputs.deployments]
    predicting = {PREDICTION_LOG: [*champions, challenger], SHADOW_PREDICTIONS: [challenger]}
    # Skippable: a run takes what waits, of whatever partitions, and records those whose rows it brought.
    specs = [
        dg.AssetSpec(
            inputs.key(stage),
            skippable=True,
            description=description,
            kinds={"nats", "duckdb"},
            **inputs.spec_attributes(stage),
            partitions_def=inputs.partitions,
            # Of the spine and the views it reads what type their columns have.
            deps=[*predicting[stage], *inputs.upstream_keys],
        )
        for stage, description in _DESCRIPTIONS.items()
    ]

    @dg.multi_asset(
        name=f"{inputs.name}__{PREDICTION_LOG}",
        specs=specs,
        check_specs=[
            *(check_rules.LOGGED_ONCE.spec(spec.key) for spec in specs),
            check_rules.LOG_ACCEPTED.spec(inputs.key(PREDICTION_LOG)),
            check_rules.WITHIN_PARTITIONS.spec(inputs.key(PREDICTION_LOG)),
        ],
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
        code_version="1",
        op_tags=inputs.op_tags(PREDICTION_LOG, slots=slots.PREDICTION_LOG),
    )
    @step
    def prediction_log(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.AssetCheckResult]:
        with lake.connect(read_only=False) as connection:
            for stage in _DESCRIPTIONS:
                _record_partitions(context, connection, inputs, stage, _unrecorded_days(context, connection, inputs, stage))
            ingested = asyncio.run(_ingest(context, connection, lake, event_stream_url(settings), inputs))
            update_view(lake, connection, inputs.name)
            once = [check_logged_once(connection, inputs, stage) for stage in _DESCRIPTIONS]
            checks = [*once, _accepted(inputs, ingested), check_within_partitions(connection, inputs)]
        if ingested.unknown_features:
            names = ", ".join(sorted(ingested.unknown_features))
            context.log.warning(f"{inputs.table(PREDICTION_LOG)} has no column for {names}: values not kept.")
        context.log.info(
            f"Rows added: {dict(ingested.rows)}; received again: {ingested.duplicates}; rejected: {ingested.rejected.total()}."
        )
        yield from checks

    return prediction_log


def _unrecorded_days(
    context: dg.AssetExecutionContext, connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, stage: str
) -> set[date]:
    """Dates that have rows and whose partition was never recorded: rows that a former release left, or a run that was killed."""
    table, column = inputs.table(stage), quote(inputs.solution.partitions.column)
    if not table_exists(connection, table):
        return set()
    days = {day for (day,) in connection.execute(f"SELECT DISTINCT {column} FROM lake.{table}").fetchall() if day}
    recorded = context.instance.get_materialized_partitions(inputs.key(stage))
    return {day for day in days if _partition_of(inputs, day) not in recorded}


def _record_partitions(
    context: dg.AssetExecutionContext,
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    stage: str,
    days: Iterable[date],
) -> None:
    """Record a materialization of each partition that holds one of `days`. Today's is one, though Dagster lists it from tomorrow on.

    A date outside of the solution's partitions belongs to none.
    """
    partitions = sorted({key for day in days if (key := _partition_of(inputs, day))})
    if not partitions:
        return
    table, column = inputs.table(stage), inputs.solution.partitions.column
    schema = table_schema(connection, f"lake.{table}", inputs.column_descriptions | PREDICTION_DESCRIPTIONS)
    lineage = logged_lineage(inputs, (column.name for column in schema.columns))
    for key in partitions:
        window = inputs.partitions.time_window_for_partition_key(key)
        inside = PartitionRange(column, window.start.date(), window.end.date()).predicate("t")
        rows, version = counted_fingerprint(connection, f"(FROM lake.{table} t WHERE {inside})")
        metadata: dict[str, Any] = {
            "dagster/table_name": f"lake.{table}",
            "dagster/column_schema": schema,
            # It describes all of them together, and is stored with the last one, from which the Dagster UI takes it.
            **(lineage if key == partitions[-1] else {}),
            "dagster/partition_row_count": rows,
            PARTITION_FINGERPRINT: version,
            "lake_snapshot": current_snapshot(connection),
        }
        # What follows the log looks at its content.
        tags = {DATA_VERSION_TAG: version}
        context.log_event(dg.AssetMaterialization(inputs.key(stage), partition=key, metadata=metadata, tags=tags))


def _partition_of(inputs: SolutionInputs, day: date) -> str | None:
    """The key of the partition that holds `day`."""
    partitions = inputs.solution.partitions
    if day < partitions.start or (partitions.end and day >= partitions.end):
        return None
    return inputs.partitions.get_partition_key_for_timestamp(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


async def _ingest(
    context: dg.AssetExecutionContext,
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    url: str,
    inputs: SolutionInputs,
) -> _Ingested:
    """Take what waits when the run begins, in batches; what comes meanwhile is left for the next run."""
    from mlops_assets.clients import event_stream
    from mlops_assets.clients.event_flow import open_flow

    ingested, durable = _Ingested(), event_stream.lake_consumer(inputs.name)
    async with (
        event_stream.connect(url, name=f"prediction log of {inputs.name}", stopping=None) as stream,
        open_flow(
            stream,
            event_stream.PREDICTIONS,
            inputs.name,
            durable=durable,
            acknowledge_seconds=_ACKNOWLEDGE_SECONDS,
            ahead=BATCH_RECORDS,
        ) as flow,
    ):
        waiting = await stream.waiting(event_stream.PREDICTIONS, inputs.name, durable=durable)
        while waiting > 0:
            batch_size = min(BATCH_RECORDS, waiting)
            messages = await flow.take(minimum=batch_size, maximum=batch_size, wait_seconds=_WAIT_SECONDS)
            if not messages:
                break  # given to another run, or to one that was killed: it comes again
            waiting -= len(messages)
            rejected = _append(connection, lake, inputs, messages, ingested, author=context.run.run_id)
            # Before the messages are acknowledged: a run that is killed in between gets them again, and records the partitions then.
            for stage, days in ingested.take_days().items():
                _record_partitions(context, connection, inputs, stage, days)
            await stream.publish([event_stream.reject_message(inputs.name, message, why) for message, why in rejected])
            for message in messages:
                await message.ack()
            await stream.client.flush()
        await stream.make_room(event_stream.PREDICTIONS, inputs.name, durable=durable)
    return ingested


def _append(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    inputs: SolutionInputs,
    messages: "Sequence[Msg]",
    ingested: _Ingested,
    *,
    author: str,
) -> "list[tuple[Msg, str]]":
    """Bring the records of `messages` into the lake. Returns the messages that hold none that can be a row, and why."""
    decoded = [(message, *_decode(inputs.name, message)) for message in messages]
    rejected = [(message, reason) for message, record, reason in decoded if record is None]
    for stage, answered in ((PREDICTION_LOG, True), (SHADOW_PREDICTIONS, False)):
        records = {
            record.prediction_id: (message, record) for message, record, _ in decoded if record and record.answered == answered
        }
        if not records:
            continue
        table = inputs.table(stage)
        rows = RecordRows(connection, inputs, table=table, records=[record for _, record in records.values()])
        appended = lake.append(connection, table=table, query=rows.query, identifier=PREDICTION_ID, author=author)
        refused = rows.refused()
        rejected += [(records[identifier][0], reason) for identifier, reason in refused.items()]
        ingested.rows[stage] += appended.rows
        ingested.duplicates += appended.duplicates
        ingested.unknown_features.update(rows.unknown_features)
        schema_change_metadata(table, appended.schema_changes)
        ingested.days[stage] |= {record.partition for identifier, (_, record) in records.items() if identifier not in refused}
    ingested.rejected.update(reason for _, reason in rejected)
    return rejected


def _decode(solution: str, message: "Msg") -> "tuple[PredictionRecord | None, str]":
    """The record of a message, or None and what is wrong with it."""
    import msgspec

    from mlops_assets.serving.prediction_record import decode_record

    try:
        record = decode_record(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return None, f"no record of a prediction: {error}"
    if record.solution != solution:
        return None, f"a record of {record.solution} on the subject of {solution}"
    return record, ""


def _accepted(inputs: SolutionInputs, ingested: _Ingested) -> dg.AssetCheckResult:
    rejected = ingested.rejected.total()
    return check_rules.LOG_ACCEPTED.result(
        inputs.key(PREDICTION_LOG),
        passed=not rejected,
        metadata={
            "accepted": sum(ingested.rows.values()) + ingested.duplicates,
            "rejected": rejected,
            "maximum_rejected": 0,
            "reasons": dg.MetadataValue.json(dict(ingested.rejected.most_common(MOST_EXAMPLES))),
        },
        description=f"see them: mlops stream tail {inputs.name} --rejects" if rejected else None,
    )
