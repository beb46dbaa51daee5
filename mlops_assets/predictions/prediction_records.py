"""Records of the servers' predictions as rows of the lake: which column holds what, and which records cannot be rows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import duckdb

from mlops_assets.lake.sql import literal, quote
from mlops_assets.lake.tables import column_types, current_snapshot, table_exists
from mlops_assets.schema.column_names import (
    CHANNEL,
    FEATURE_VIEWS,
    MODEL_VERSION,
    OUTPUTS,
    PREDICTION_ID,
    ROLE,
    SCORED_BY,
    SERVED_AT,
    VIEW_FLAGS,
    VIEW_SNAPSHOTS,
    known_since_column,
)
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    from mlops_assets.serving.prediction_record import PredictionRecord

_STAGED = "prediction_records"

_TYPES = {
    PREDICTION_ID: "VARCHAR",
    CHANNEL: "VARCHAR",
    ROLE: "VARCHAR",
    MODEL_VERSION: "INTEGER",
    FEATURE_VIEWS: "VARCHAR",
    VIEW_FLAGS: "VARCHAR",
    VIEW_SNAPSHOTS: "VARCHAR",
    SERVED_AT: "TIMESTAMP WITH TIME ZONE",
    SCORED_BY: "VARCHAR",
}


class RecordRows:
    """Rows of table `table` for `records`, which are all of one solution, staged in `connection` as text until they are cast."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        inputs: SolutionInputs,
        *,
        table: str,
        records: Sequence["PredictionRecord"],
    ):
        import pyarrow as pa

        self._connection = connection
        rows = [_texts(inputs, record) for record in records]
        types = _column_types(connection, inputs, table, records)
        names = dict.fromkeys(name for row in rows for name in row)
        self.unknown_features = [name for name in names if name not in types]
        """Features of an older or a newer model that the table has no column for."""
        self._types = {name: types[name] for name in names if name in types}
        columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in self._types}
        connection.register(_STAGED, pa.table(columns))

    @property
    def query(self) -> str:
        """SQL for the rows of the records that can be rows."""
        cast = ", ".join(f"CAST({quote(name)} AS {kind}) AS {quote(name)}" for name, kind in self._types.items())
        wrong = " OR ".join(self._wrong(name) for name in self._types)
        return f"SELECT {cast} FROM {_STAGED} WHERE NOT ({wrong})"

    def refused(self) -> dict[str, str]:
        """The prediction ids of the other records, with what is wrong."""
        reasons = ", ".join(
            f"CASE WHEN {self._wrong(name)} THEN {quote(name)} || {literal(f' is no {kind} ({name})')} END"
            for name, kind in self._types.items()
        )
        wrong = " OR ".join(self._wrong(name) for name in self._types)
        rows = self._connection.execute(f"SELECT {PREDICTION_ID}, coalesce({reasons}) FROM {_STAGED} WHERE {wrong}").fetchall()
        return dict(rows)

    def _wrong(self, name: str) -> str:
        return f"({quote(name)} IS NOT NULL AND TRY_CAST({quote(name)} AS {self._types[name]}) IS NULL)"


def _texts(inputs: SolutionInputs, record: "PredictionRecord") -> dict[str, str | None]:
    """The columns of one record, as texts that DuckDB casts without loss."""
    spine = inputs.solution.spine
    values: dict[str, Any] = {
        **record.features,
        **record.entity,
        **{known_since_column(name): view.event_timestamp for name, view in record.views.items()},
        PREDICTION_ID: record.prediction_id,
        CHANNEL: record.channel,
        ROLE: record.role,
        MODEL_VERSION: record.model_version,
        FEATURE_VIEWS: json.dumps({name: view.version for name, view in record.views.items()}),
        VIEW_FLAGS: json.dumps({name: view.flag for name, view in record.views.items()}),
        VIEW_SNAPSHOTS: json.dumps({name: view.snapshot for name, view in record.views.items()}),
        SERVED_AT: record.served_at,
        inputs.solution.partitions.column: record.partition,
        spine.key: record.key,
        spine.prediction_time: record.prediction_time,
        **dict(_outputs(record)),
        # No column before there are callers.
        **({SCORED_BY: record.caller} if record.caller is not None else {}),
    }
    return {name: _text(value) for name, value in values.items()}


def _outputs(record: "PredictionRecord") -> Iterator[tuple[str, Any]]:
    for name in OUTPUTS:
        if (value := getattr(record.outputs, name)) is not None:
            yield name, value


def _text(value: Any) -> str | None:
    match value:
        case None | str():
            return value
        case bool():
            return str(value).lower()
        case datetime() | date():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(repr, value))}]"
    return repr(value)


def _column_types(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, table: str, records: Sequence["PredictionRecord"]
) -> Mapping[str, str]:
    """Types of all columns that a row may have: those of the table where it has them, else those that the batch gives it."""
    day = inputs.solution.partitions.start
    frame = inputs.frame_query(first=day, end=day, condition="true", labelled=False, snapshot=current_snapshot(connection))
    outputs = records[0].outputs
    types = {**column_types(connection, f"({frame})"), **_TYPES, "score": "FLOAT", "value": "FLOAT"}
    types["predicted_label"] = "BIGINT" if isinstance(outputs.predicted_label, int) else "VARCHAR"
    if outputs.probabilities is not None:
        types["probabilities"] = "FLOAT[]"
    return types | (column_types(connection, f"lake.{table}") if table_exists(connection, table) else {})
