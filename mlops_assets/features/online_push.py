"""From the lake to the online store: what changed in a feature view since its last push, and nothing else.

Only this module of the package reads the lake. Whoever pushes holds the lake's writer lock of `lock_name`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import duckdb

from mlops_assets.feature_store.registry import FeatureView
from mlops_assets.lake.sql import lake_name, literal, quote
from mlops_assets.lake.table_changes import CHANGE, changes_query
from mlops_assets.lake.tables import CATALOG, column_types
from mlops_assets.online_store.store import OnlineStore
from mlops_assets.online_store.values import EntityValues, Key, OnlineView, ViewState, build_columns
from mlops_assets.schema.column_names import LOADED_AT, internal


@dataclass(frozen=True)
class PushResult:
    """What one push did: the state it left, entities written and removed, and whether it read the whole view and why."""

    state: ViewState
    written: int
    removed: int
    whole_view: str | None
    seconds: float


def lock_name(view: FeatureView) -> str:
    """The name under which the pushers of one view exclude each other."""
    return f"online_store.{view.name}_v{view.version}"


def push_view(
    connection: duckdb.DuckDBPyConnection, store: OnlineStore, view: FeatureView, *, snapshot: int, rebuild: bool
) -> PushResult:
    """Bring the store from the snapshot it holds of `view` to `snapshot`; with `rebuild` from nothing.

    Reads the rows that changed between the two, and the whole view when there is no way from one to the other. Raises
    OnlineStoreError when a column has a type that the store cannot hold.
    """
    began = perf_counter()
    online = describe_view(connection, view, snapshot)
    source = _source(connection, view.model.table, snapshot)
    state = None if rebuild else store.state(view.name, view.version)
    reason = "rebuild" if rebuild else _obstacle(connection, state, online, source, snapshot)
    written: Sequence[EntityValues]
    removed: Sequence[Key]
    if state is None or reason is not None:
        state, written, removed = None, _newest_rows(connection, view, snapshot, among=None), []
    elif state.snapshot == snapshot:
        return PushResult(state=state, written=0, removed=0, whole_view=None, seconds=perf_counter() - began)
    else:
        written, removed = _changes(connection, store, view, online, state.snapshot, snapshot)
    after = store.push(online, source=source, snapshot=snapshot, base=state, written=written, removed=removed)
    return PushResult(state=after, written=len(written), removed=len(removed), whole_view=reason, seconds=perf_counter() - began)


def describe_view(connection: duckdb.DuckDBPyConnection, view: FeatureView, snapshot: int) -> OnlineView:
    """The view as the store sees it, with the column types of the lake table."""
    types = column_types(connection, _at(view, snapshot))
    return OnlineView(
        name=view.name,
        version=view.version,
        entity=build_columns(view.entity, types, view=view.name, as_key=True),
        features=build_columns(view.features, types, view=view.name, as_key=False),
        timed=view.event_timestamp is not None,
        freshness_days=view.freshness_days,
    )


def _obstacle(
    connection: duckdb.DuckDBPyConnection, state: ViewState | None, online: OnlineView, source: str, snapshot: int
) -> str | None:
    """Why the changes since `state` cannot be had, or None."""
    if state is None:
        return "first push"
    if state.view != online:
        return "the view's columns or limits changed"
    if state.source != source:
        return "the table was created anew"
    if state.snapshot > snapshot:
        return "the store is newer than the lake, which was restored"
    kept = _scalar(
        connection,
        f"SELECT count(*) FROM {CATALOG}.ducklake_snapshot WHERE snapshot_id BETWEEN {state.snapshot} AND {snapshot}",
    )
    if kept != snapshot - state.snapshot + 1:
        return "snapshots since the last push have expired"
    return None


def _source(connection: duckdb.DuckDBPyConnection, table: str, snapshot: int) -> str:
    """What identifies the table: its id in the catalog, which a table that is created anew under the same name does not share."""
    schema, _, name = table.partition(".")
    identity = _scalar(
        connection,
        f"SELECT t.table_uuid FROM {CATALOG}.ducklake_table t JOIN {CATALOG}.ducklake_schema s USING (schema_id) "
        f"WHERE s.schema_name = {literal(schema)} AND t.table_name = {literal(name)} "
        f"AND s.end_snapshot IS NULL AND t.begin_snapshot <= {snapshot} "
        f"AND (t.end_snapshot IS NULL OR t.end_snapshot > {snapshot})",
    )
    return f"{table} {identity}"


def _changes(
    connection: duckdb.DuckDBPyConnection,
    store: OnlineStore,
    view: FeatureView,
    online: OnlineView,
    former: int,
    snapshot: int,
) -> tuple[list[EntityValues], list[Key]]:
    """Entities whose newest values are others at `snapshot` than at `former`, and entities that have none any more."""
    changed = connection.execute(_changed_entities_query(view, former, snapshot)).fetchall()
    width = len(view.entity)
    keys = [row[:width] for row in changed]
    written, uncertain = [], []
    for row, stored in zip(changed, store.event_timestamps(online, keys), strict=True):
        deleted, inserted, values = row[width:]
        if inserted is not None and (stored is None or inserted >= stored):
            # What was the newest row is no newer than this one, deleted or not.
            written.append(EntityValues(row[:width], inserted, tuple(values)))
        elif deleted is not None and (stored is None or deleted >= stored):
            uncertain.append(row[:width])
    if uncertain:
        found = _newest_rows(connection, view, snapshot, among=uncertain)
        written += found
        return written, sorted(set(uncertain) - {entity.key for entity in found})
    return written, []


def _changed_entities_query(view: FeatureView, former: int, snapshot: int) -> str:
    """SQL for one row an entity: its keys, the newest event timestamps that really went and came, and the values that came.

    A run that replaces a partition deletes and inserts equal rows: they cancel out, whatever their audit columns say.
    """
    keys = ", ".join(map(quote, view.entity))
    features = ", ".join(map(quote, view.features))
    moment, loaded, net = internal("moment"), internal("loaded"), internal("net")
    return f"""
        WITH net AS (
            SELECT {keys}, {_moment(view)} AS {moment}, {features}, max({_load_time(view)}) AS {loaded}, sum({CHANGE}) AS {net}
            FROM ({changes_query(view.model.table, first=former + 1, last=snapshot)})
            WHERE {_usable(view)} GROUP BY {keys}, {moment}, {features} HAVING {net} <> 0
        )
        SELECT {keys}, max({moment}) FILTER ({net} < 0), max({moment}) FILTER ({net} > 0),
               arg_max(row({features}), ({moment}, {loaded})) FILTER ({net} > 0)
        FROM net GROUP BY {keys}"""


def _newest_rows(
    connection: duckdb.DuckDBPyConnection, view: FeatureView, snapshot: int, *, among: Sequence[Key] | None
) -> list[EntityValues]:
    """The newest row of each entity (of those in `among`, or all), as of `snapshot`."""
    keys = ", ".join(map(quote, view.entity))
    features = ", ".join(map(quote, view.features))
    chosen, parameters = "", []
    if among is not None:
        types = column_types(connection, _at(view, snapshot))
        names = ", ".join(f"unnest(CAST(? AS {types[key]}[])) AS {quote(key)}" for key in view.entity)
        chosen = f" AND ({keys}) IN (SELECT ({keys}) FROM (SELECT {names}))"
        parameters = [list(column) for column in zip(*among, strict=True)]
    rows = connection.execute(
        f"SELECT {keys}, max({_moment(view)}), arg_max(row({features}), ({_moment(view)}, {_load_time(view)})) "
        f"FROM {_at(view, snapshot)} WHERE {_usable(view)}{chosen} GROUP BY {keys}",
        parameters,
    ).fetchall()
    width = len(view.entity)
    return [EntityValues(row[:width], row[width], tuple(row[width + 1])) for row in rows]


def _at(view: FeatureView, snapshot: int) -> str:
    return f"{lake_name(view.model.table)} AT (VERSION => {snapshot})"


def _moment(view: FeatureView) -> str:
    """SQL for the event timestamp in microseconds since 1970; 0 in a view without times."""
    return f"epoch_us({quote(view.event_timestamp)})" if view.event_timestamp else "0::BIGINT"


def _load_time(view: FeatureView) -> str:
    """SQL for what decides between rows of one entity and time: the row that was loaded last."""
    return quote(LOADED_AT) if LOADED_AT in view.model.columns else "0"


def _usable(view: FeatureView) -> str:
    """SQL that is false for a row that no join can find: a null key or event timestamp."""
    columns = [*view.entity, *([view.event_timestamp] if view.event_timestamp else [])]
    return " AND ".join(f"{quote(column)} IS NOT NULL" for column in columns)


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    return connection.execute(query).fetchall()[0][0]
