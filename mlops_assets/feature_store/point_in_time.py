"""Offline feature retrieval: every feature as it was known at prediction time, as one DuckDB statement or view by view."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise

import duckdb

from mlops_assets.feature_store.registry import FeatureView
from mlops_assets.lake.sql import lake_name, quote
from mlops_assets.schema.column_names import internal, known_since_column

PART_VALUES = 80_000_000
"""Feature values that are joined at once: what fits into the memory of a connection together with all that the joins need."""

STALE_DAYS = 7
"""Days in which the event timestamp of a value that is too old is still told. Beyond them it is as if there were none, in every run alike:
how far back a run reads must not show in its rows."""

_STEP = internal("frame")
_ROW = internal("row")
_EPOCH = date(1970, 1, 1)
_MICROSECONDS_OF_A_DAY = 24 * 60 * 60 * 1_000_000


@dataclass(frozen=True)
class SelectedView:
    """The features of one view that a solution uses, and how many days old it accepts them to be (None = what the view allows).

    `may_be_late` is how long predictions wait for a partition of the view (None = until it is there).
    """

    view: FeatureView
    features: tuple[str, ...]
    accepted_lag_days: int | None = None
    may_be_late: timedelta | None = None

    @property
    def known_since(self) -> str | None:
        """The audit column of the joined frame that holds the event timestamp of the values taken from this view."""
        return known_since_column(self.view.name) if self.view.event_timestamp else None


@dataclass(frozen=True)
class Frame:
    """The rows of the query `spine` with the features of `views` as known at its column `prediction_time`.

    `first` and `last` bound the dates of the prediction times; views are read as of the lake's `snapshot`. See `point_in_time_query`.
    """

    spine: str
    prediction_time: str
    views: tuple[SelectedView, ...]
    first: date
    last: date
    snapshot: int

    @property
    def query(self) -> str:
        """The frame as one SQL statement."""
        return self._joined(self.spine, self.views)

    def built(self, connection: duckdb.DuckDBPyConnection, part_values: int = PART_VALUES) -> Iterator[str]:
        """SQL for the same rows, part after part in order of prediction time. Run each before the next is asked for.

        A part has about `part_values` feature values and is built of temporary tables, one join after another, each with keys and times alone
        instead of all columns: time and memory grow with the rows where the single statement has to spill.

        Raises duckdb.InvalidInputException when a view has two rows of an entity that hold at all times.
        """
        for part in self.parts(connection, part_values):
            with part.opened(connection) as query:
                yield query

    def parts(self, connection: duckdb.DuckDBPyConnection, part_values: int) -> list["Frame"]:
        """Frames of some days each, together all rows, with about `part_values` feature values each.

        Rows without a prediction time are in the last one.
        """
        at, features = quote(self.prediction_time), max(1, sum(len(chosen.features) for chosen in self.views))
        # Of timestamps with time zone the day comes from a calendar, which takes ten times as long.
        counted = connection.execute(
            f"SELECT day, sum(n) OVER (ORDER BY day) * {features} // {part_values} FROM (SELECT epoch_us({at}) // "
            f"{_MICROSECONDS_OF_A_DAY} AS day, count(*) AS n FROM ({self.spine}) GROUP BY ALL) WHERE day IS NOT NULL ORDER BY day"
        ).fetchall()
        # A part begins with the first day of each further `part_values`.
        starts = [_EPOCH + timedelta(days=day) for (_, before), (day, part) in pairwise(counted) if part > before]
        if not starts:
            return [self]
        parts = []
        for start, end in pairwise([None, *starts, None]):
            within = f"{at} >= TIMESTAMPTZ '{start} 00:00:00+00'" if start else "true"
            within += f" AND {at} < TIMESTAMPTZ '{end} 00:00:00+00'" if end else f" OR {at} IS NULL"
            spine = f"SELECT * FROM ({self.spine}) WHERE {within}"
            first, last = max(self.first, start or self.first), min(self.last, end or self.last)
            parts.append(replace(self, spine=spine, first=first, last=last))
        return parts

    @contextmanager
    def opened(self, connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
        """SQL for all rows, in order of prediction time, from temporary tables that exist inside the `with` block."""
        rows, at = f"{_STEP}_spine", quote(self.prediction_time)
        tables = [rows, *(f"{_STEP}_{position}" for position in range(len(self.views)))]
        try:
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {rows} AS SELECT row_number() OVER () AS {_ROW}, * FROM (FROM ({self.spine}) ORDER BY {at})"
            )
            selected, joins, aligned = [], "", "true"
            for chosen, table in zip(self.views, tables[1:], strict=True):
                keys = ", ".join(map(quote, dict.fromkeys((self.prediction_time, *chosen.view.entity))))
                known_since = [chosen.known_since] if chosen.known_since else []
                names = [quote(name) for name in (*chosen.features, *known_since)]
                joined = self._joined(f"SELECT {_ROW}, {keys} FROM temp.main.{rows}", [chosen])
                connection.execute(
                    f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {_ROW}, {', '.join(names)} FROM ({joined}) ORDER BY {_ROW}"
                )
                selected += [f"{table}.{name}" for name in names]
                joins += f" POSITIONAL JOIN temp.main.{table}"
                aligned += f" AND {table}.{_ROW} = {rows}.{_ROW}"
            # Positions are the rows' numbers, or nothing is given.
            checked = (
                f"CASE WHEN {aligned} THEN {rows}.{at} ELSE error('A feature view has several rows of one entity') END AS {at}"
            )
            yield f"SELECT {', '.join([f'{rows}.* EXCLUDE ({_ROW}) REPLACE ({checked})', *selected])} FROM temp.main.{rows}{joins}"
        finally:
            # After an error the connection may be closed before the iterator is: it has taken the tables along.
            with suppress(duckdb.ConnectionException):
                for table in tables:
                    connection.execute(f"DROP TABLE IF EXISTS temp.main.{table}")

    def _joined(self, spine: str, views: Sequence[SelectedView]) -> str:
        return point_in_time_query(
            spine=spine,
            prediction_time=self.prediction_time,
            views=views,
            first=self.first,
            last=self.last,
            snapshot=self.snapshot,
        )


def point_in_time_query(
    *,
    spine: str,
    prediction_time: str,
    views: Sequence[SelectedView],
    first: date,
    last: date,
    snapshot: int | None = None,
    few_entities: bool = False,
) -> str:
    """SQL for the rows of the query `spine` with the features of `views` as known at the column `prediction_time`.

    An ASOF join takes the newest row of the entity whose event timestamp is not after the prediction time; a missing entity, no
    history yet, or values older than the view's freshness limit give nulls; the event timestamp is null, too, where it is older by more
    than `STALE_DAYS`. `first` and `last` bound the dates of the prediction times, so that only those partitions of a view are read that
    can matter. The views are read as of the lake's `snapshot`: what was loaded or corrected later does not count, and the same query
    gives the same rows for ever. None reads the present. With `few_entities` the rows of others are left out before the join, which sorts a
    view as a whole; the spine is read twice then.
    """
    selected, joins = ["s.*"], []
    for position, chosen in enumerate(views):
        alias, view = f"v{position}", chosen.view
        rows = _view_rows(chosen, first, last, snapshot, among=spine if few_entities else None)
        on = " AND ".join(f"s.{quote(key)} = {alias}.{quote(key)}" for key in view.entity)
        if view.event_timestamp is None:
            selected += [f"{alias}.{quote(feature)} AS {quote(feature)}" for feature in chosen.features]
            joins.append(f"LEFT JOIN {rows} {alias} ON {on}")
            continue
        known_since = f"{alias}.{quote(view.event_timestamp)}"
        moment = f"s.{quote(prediction_time)}"
        fresh = is_fresh(moment, known_since, view.freshness_days)
        selected += [f"CASE WHEN {fresh} THEN {alias}.{quote(feature)} END AS {quote(feature)}" for feature in chosen.features]
        reported = is_fresh(moment, known_since, None if view.freshness_days is None else view.freshness_days + STALE_DAYS)
        selected.append(f"CASE WHEN {reported} THEN {known_since} END AS {quote(str(chosen.known_since))}")
        joins.append(f"ASOF LEFT JOIN {rows} {alias} ON {on} AND {moment} >= {known_since}")
    return f"SELECT {', '.join(selected)} FROM ({spine}) s {' '.join(joins)}"


def is_fresh(moment: str, known_since: str, freshness_days: int | None) -> str:
    """SQL that is true when a value known since `known_since` still counts at `moment`: a day is 24 hours in every time zone."""
    if freshness_days is None:
        return "true"
    # Differences of timestamps with time zone go through a calendar: with them the whole join takes twice the time.
    return f"epoch_us({moment}) - epoch_us({known_since}) <= {freshness_days * _MICROSECONDS_OF_A_DAY}"


def _view_rows(chosen: SelectedView, first: date, last: date, snapshot: int | None, *, among: str | None) -> str:
    """SQL for the rows of a view that can matter; those of the entities of the query `among`, or of all."""
    view = chosen.view
    names = [*view.entity, *([view.event_timestamp] if view.event_timestamp else []), *chosen.features]
    # DuckDB's ASOF join of a few rows takes null keys for equal.
    conditions = [f"{quote(key)} IS NOT NULL" for key in view.entity]
    if view.model.partition_column is not None:
        # A day of slack on both sides: partitions are dates in the data's own time zone, prediction times are in UTC. One more at the
        # beginning: a date may begin an hour earlier than it does on the day of the prediction.
        partition = quote(view.model.partition_column)
        conditions.append(f"{partition} <= DATE '{last}' + 1")
        if view.freshness_days is not None:
            conditions.append(f"{partition} >= DATE '{first}' - {view.freshness_days + STALE_DAYS + 2}")
    if among is not None:
        keys = ", ".join(map(quote, view.entity))
        conditions.append(f"({keys}) IN (SELECT ({keys}) FROM ({among}))")
    version = f" AT (VERSION => {snapshot})" if snapshot is not None else ""
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"(SELECT {', '.join(map(quote, names))} FROM {lake_name(view.model.table)}{version}{where})"
