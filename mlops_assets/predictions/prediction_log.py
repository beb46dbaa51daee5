"""`prediction_log`: the predictions of the servers, from the event stream into the lake's `predictions`, each exactly once.

A record is acknowledged after the transaction that holds it: what is killed in between comes again and is found to be there.
Predictions that nobody was answered with (a challenger in the shadow) go to `shadow_predictions`.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg
import duckdb

from mlops_assets.access.credentials import event_stream_url
from mlops_assets.core import check_rules
from mlops_assets.core.keys import DEPLOYMENT, PREDICTION_LOG, PREDICTIONS, SHADOW_PREDICTIONS
from mlops_assets.core.prediction_columns import BATCH, PREDICTION_DESCRIPTIONS
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake, column_types, table_exists
from mlops_assets.lake.schema_evolution import ColumnChange
from mlops_assets.predictions.prediction_records import RecordRows
from mlops_assets.runs import slots
from mlops_assets.schema.column_names import CHANNEL, PREDICTION_ID
from mlops_assets.stages.execution import RETRIES, schema_change_metadata, table_schema
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from mlops_assets.serving.prediction_record import PredictionRecord

BATCH_RECORDS = 5000
_ACKNOWLEDGE_SECONDS = 300.0
_WAIT_SECONDS = 2.0


@dataclass
class _Ingested:
    """What one run took from the event stream."""

    rows: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    rejected: int = 0
    unknown_features: set[str] = field(default_factory=set)
    snapshot: int | None = None
    schema_changes: list[ColumnChange] = field(default_factory=list)


def build_prediction_log(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The prediction log of one solution's servers."""
    key = inputs.key(PREDICTION_LOG)

    @dg.asset(
        key=key,
        description="Online and stream predictions with the features they saw, appended to the table of the batch predictions.",
        owners=inputs.solution.owners,
        group_name=inputs.name,
        kinds={"nats", "duckdb"},
        tags=inputs.tags(PREDICTION_LOG),
        deps=[inputs.key(DEPLOYMENT)],
        check_specs=[check_rules.LOGGED_ONCE.spec(key), check_rules.LOG_ACCEPTED.spec(key)],
        retry_policy=RETRIES,
        code_version="1",
        op_tags={slots.SLOTS_TAG: slots.PREDICTION_LOG},
    )
    @step
    def prediction_log(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult:
        table = inputs.table(PREDICTIONS)
        with lake.connect(read_only=False) as connection:
            ingested = asyncio.run(_ingest(connection, lake, event_stream_url(settings), inputs, author=context.run.run_id))
            checks = [_logged_once(connection, inputs), _accepted(inputs, ingested)]
            schema = (
                table_schema(connection, f"lake.{table}", inputs.column_descriptions | PREDICTION_DESCRIPTIONS)
                if table_exists(connection, table)
                else None
            )
        if ingested.unknown_features:
            context.log.warning(f"{table} has no column for {', '.join(sorted(ingested.unknown_features))}: values not kept.")
        return dg.MaterializeResult(
            metadata={
                "dagster/table_name": f"lake.{table}",
                **({"dagster/column_schema": schema} if schema else {}),
                **({"lake_snapshot": ingested.snapshot} if ingested.snapshot is not None else {}),
                **schema_change_metadata(table, ingested.schema_changes),
                "rows_added": sum(ingested.rows.values()),
                "rows_by_table": dg.MetadataValue.json(dict(ingested.rows)),
                "received_again": ingested.duplicates,
                "rejected": ingested.rejected,
            },
            check_results=checks,
        )

    return prediction_log


async def _ingest(
    connection: duckdb.DuckDBPyConnection, lake: Lake, url: str, inputs: SolutionInputs, *, author: str
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
            wanted = min(BATCH_RECORDS, waiting)
            messages = await flow.take(minimum=wanted, maximum=wanted, wait_seconds=_WAIT_SECONDS)
            if not messages:
                break  # given to another run, or to one that was killed: it comes again
            waiting -= len(messages)
            rejected = _append(connection, lake, inputs, messages, ingested, author=author)
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
    for table, answered in ((PREDICTIONS, True), (SHADOW_PREDICTIONS, False)):
        records = {
            record.prediction_id: (message, record) for message, record, _ in decoded if record and record.answered == answered
        }
        if not records:
            continue
        name = inputs.table(table)
        rows = RecordRows(connection, inputs, table=name, records=[record for _, record in records.values()])
        appended = lake.append(connection, table=name, query=rows.query, identifier=PREDICTION_ID, author=author)
        refused = rows.refused()
        rejected += [(records[identifier][0], reason) for identifier, reason in refused.items()]
        ingested.rows[table] += appended.rows
        ingested.duplicates += appended.duplicates
        ingested.unknown_features.update(rows.unknown_features)
        ingested.snapshot = appended.snapshot
        ingested.schema_changes += appended.schema_changes
    ingested.rejected += len(rejected)
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


def _logged_once(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs) -> dg.AssetCheckResult:
    table, rows, distinct = inputs.table(PREDICTIONS), 0, 0
    if table_exists(connection, table) and CHANNEL in column_types(connection, f"lake.{table}"):
        rows, distinct = connection.execute(
            f"SELECT count(*), count(DISTINCT {PREDICTION_ID}) FROM lake.{table} WHERE {CHANNEL} <> '{BATCH}'"
        ).fetchall()[0]
    return check_rules.LOGGED_ONCE.result(
        inputs.key(PREDICTION_LOG),
        passed=rows == distinct,
        metadata={"rows": rows, "more_than_once": rows - distinct},
        description=None,
    )


def _accepted(inputs: SolutionInputs, ingested: _Ingested) -> dg.AssetCheckResult:
    return check_rules.LOG_ACCEPTED.result(
        inputs.key(PREDICTION_LOG),
        passed=not ingested.rejected,
        metadata={"rejected": ingested.rejected},
        description=f"see them: mlops stream tail {inputs.name} --rejects" if ingested.rejected else None,
    )
