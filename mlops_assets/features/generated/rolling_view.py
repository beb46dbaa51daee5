"""A feature view that is declared in YAML: the dbt model that a person would write for it.

The rule of what is known at the time is in one condition of its SQL: a row of the table is joined to the moments from when it is known.
"""

from collections.abc import Collection, Iterator, Mapping

from mlops_assets.features.generated.dbt_model import (
    LOADED_AT_COLUMN,
    DbtColumn,
    GeneratedModel,
    Inline,
    dbt_type,
    plain,
    selected,
    source_reference,
    sql_name,
    sql_value,
)
from mlops_assets.features.sql_expressions import Path, expression_type
from mlops_assets.schema.cadence import CADENCE_LENGTHS
from mlops_assets.schema.column_names import LOADED_AT
from mlops_assets.schema.configuration_errors import ConfigurationError, ErrorCollector, nearest
from mlops_assets.schema.feature_views_section import EVENT_DATE, EVENT_TIMESTAMP, FeatureViewSection, RollingFeature
from mlops_assets.schema.source import RawTable, Source
from mlops_assets.schema.time_partitions import Partitions

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
_NUMBERS = (*_WHOLE, "FLOAT", "DOUBLE", "DECIMAL")
_VALUES = (*_NUMBERS, "VARCHAR", "BOOLEAN")
_ARGUMENTS = {
    "count": (("BOOLEAN",), "a condition"),
    "rate": (("BOOLEAN",), "a condition"),
    "sum": (_NUMBERS, "a number"),
    "mean": (_NUMBERS, "a number"),
    "last": (_VALUES, "a number, a text or a boolean"),
}
_SECONDS = {"hours": 3600, "days": 86400}
_TIMES = ("happened_at", "known_at")


def derive_view(name: str, source: Source, *, folder: str, origin: str) -> GeneratedModel:
    """The dbt model of the feature view `name` of `source`, whose models have the tag `folder`; `origin` is the file that declares it.

    Raises ConfigurationError for a table, column or expression that does not fit.
    """
    here: Path = ("feature_views", name)
    view = source.feature_views[name]
    if view.table not in source.tables:
        message = f"the source has no table {view.table!r}; {nearest(view.table, list(source.tables))}"
        raise ConfigurationError((*here, "table"), message)
    table = source.tables[view.table]
    if table.partitions is None:
        message = f"{view.table} has no `partitions`: a view of the last days is built by day; give the table some"
        raise ConfigurationError((*here, "table"), message)
    errors, features = ErrorCollector(), []
    with errors.collect():
        _check_columns(view, table, here)
    types = {column: definition.type for column, definition in table.columns.items()}
    for feature, definition in view.features.items():
        with errors.collect():
            features.append(_Feature(feature, definition, view.table, types, here))
    errors.raise_errors()
    period = CADENCE_LENGTHS[table.partitions.cadence].most_days - 1
    return GeneratedModel(
        name=name,
        folder=f"features/{folder}",
        origin=origin,
        sql=_query(view, table, table.partitions, features, history_days=view.reach + 1 + view.late_days + period),
        document=_document(
            name,
            source,
            features,
            folder=folder,
            history_days=view.reach + 1 + view.late_days + period,
            days=view.late_days + period,
        ),
    )


class _Feature:
    """A feature of a declared view, and its SQL over the rows that are known at one moment."""

    def __init__(self, name: str, feature: RollingFeature, table: str, types: Mapping[str, str], here: Path):
        self.name = name
        self.days = feature.days
        self._feature = feature
        self._table = table
        self._input_type = "BOOLEAN"
        self.expression: str | None = None
        path: Path = (*here, "features", name, feature.function)
        if feature.function == "time_since" or (feature.function == "count" and feature.argument == "*"):
            return
        self.expression = sql_value(feature.argument)
        data_type = expression_type(feature.argument, columns=types, of=f"the raw table {table}", path=path)
        self._input_type = data_type.partition("(")[0]
        allowed, in_words = _ARGUMENTS[feature.function]
        if self._input_type not in allowed:
            raise ConfigurationError(path, f"{feature.function} is of {in_words}; {feature.argument!r} is {data_type}")

    def column(self) -> DbtColumn:
        """The feature in the contract."""
        function = self._feature.function
        data_type = {
            "count": "integer",
            "sum": "bigint" if self._input_type in _WHOLE else "double",
            "last": "double" if self._input_type == "DECIMAL" else self._input_type,
        }.get(function, "double")
        description = self._feature.description or self._in_words()
        return DbtColumn(name=self.name, type=data_type, description=description, required=function in ("count", "sum"))

    def sql(self, value: str) -> str:
        """The expression over the rows of one entity at one moment; `value` is the column with its input."""
        within = f"in_{self.days}_days"
        # Sums of fractions depend on their order in the last digits.
        ordered = value if self._input_type in _WHOLE else f"{value} order by {value}"
        match self._feature.function:
            case "count":
                condition = within if self.expression is None else f"{within} and {value}"
                return f"(count(*) filter (where {condition}))::integer"
            case "sum":
                return f"coalesce(sum({ordered}) filter (where {within}), 0)::{dbt_type(self.column().type)}"
            case "mean":
                counted = f"nullif(count({value}) filter (where {within}), 0)"
                return f"(sum({ordered}) filter (where {within}))::double / {counted}"
            case "rate":
                return f"avg({value}::integer) filter (where {within})"
            case "last":
                newest = f"last({value} order by happened_at, known_at, {value}) filter (where {within} and {value} is not null)"
                return f"({newest})::{dbt_type(self.column().type)}"
            case _:
                newest = f"max(happened_at) filter (where {within})"
                return f"(epoch({EVENT_TIMESTAMP}) - epoch({newest})) / {_SECONDS[self._feature.argument]}"

    def _in_words(self) -> str:
        argument, rows = self._feature.argument, f"the rows of {self._table}"
        of = {
            "count": rows.capitalize() if argument == "*" else f"{rows.capitalize()} with {argument}",
            "sum": f"Sum of {argument} of {rows}",
            "mean": f"Mean of {argument} of {rows}",
            "rate": f"Share of those with {argument} among {rows}",
            "last": f"{argument} of the newest of {rows}",
            "time_since": f"{argument.capitalize()} since the newest of {rows}",
        }[self._feature.function]
        days = "day" if self.days == 1 else f"{self.days} days"
        without = "" if self._feature.function in ("count", "sum") else "; null without any"
        return f"{of} in the {days} before {EVENT_TIMESTAMP}{without}."


def _inputs(features: list[_Feature], columns: Collection[str]) -> dict[str, str]:
    """Expression -> the column that holds it, named like the column of the table that it is."""
    names: dict[str, str] = {}
    for feature in features:
        if feature.expression is not None and feature.expression not in names:
            is_column = feature.expression in columns and feature.expression not in _TIMES
            names[feature.expression] = sql_name(feature.expression if is_column else f"{feature.name}_input")
    return names


def _check_columns(view: FeatureViewSection, table: RawTable, here: Path) -> None:
    named = [*((column, (*here, "entity", number)) for number, column in enumerate(view.entity)), (view.time, (*here, "time"))]
    if view.known_at is not None:
        named.append((view.known_at, (*here, "known_at")))
    for column, path in named:
        if column not in table.columns:
            message = f"{view.table} has no column {column!r}; {nearest(column, list(table.columns))}"
            raise ConfigurationError(path, message)
    for column, field in ((view.time, "time"), (view.known_at or view.time, "known_at")):
        if (kind := table.columns[column].type) != "timestamptz":
            raise ConfigurationError((*here, field), f"a moment is a timestamptz; {column} is a {kind}")


def _query(
    view: FeatureViewSection, table: RawTable, partitions: Partitions, features: list[_Feature], *, history_days: int
) -> str:
    entity = list(map(sql_name, view.entity))
    time, known = sql_name(view.time), sql_name(view.known_at or view.time)
    inputs = _inputs(features, table.columns)
    kept = [name for name in inputs.values() if name not in entity]
    rows = [
        *entity,
        f"{time} as happened_at",
        f"{known if known == time else f'greatest({time}, {known})'} as known_at",
        *(name if name == expression else f"({expression}) as {name}" for expression, name in inputs.items() if name in kept),
        LOADED_AT,
    ]
    windows = dict.fromkeys(feature.days for feature in features)
    known_rows = [
        *(f"events.{name}" for name in entity),
        f"moments.{EVENT_TIMESTAMP}",
        *(f"events.{name}" for name in (*_TIMES, *kept)),
        *(f"events.happened_at > moments.{EVENT_TIMESTAMP} - interval {days} day as in_{days}_days" for days in windows),
        f"events.{LOADED_AT}",
    ]
    columns = [
        *entity,
        EVENT_TIMESTAMP,
        *(f"{feature.sql(inputs.get(feature.expression or '', ''))} as {sql_name(feature.name)}" for feature in features),
        f"{{{{ mlops.business_date('{EVENT_TIMESTAMP}') }}}} as {EVENT_DATE}",
        f"max({LOADED_AT}) as {LOADED_AT}",
    ]
    conditions = "".join(f"\n      and {name} is not null" for name in dict.fromkeys([*entity, time, known]))
    return f"""\
with events as (
    select
{_indented(rows)}
    from {source_reference(view.table)}
    where {{{{ mlops.in_window('{partitions.column}', history_days={history_days}) }}}}{conditions}
),

moments as (
    {{{{ mlops.moments_of_window('events', 'happened_at', every='{view.every}') }}}}
),

-- An event counts from when it is known. It stays past the longest window, so that the last row of an entity holds nothing.
known as (
    select
{_indented(known_rows)}
    from events
    join moments
        on moments.{EVENT_TIMESTAMP} >= events.known_at
        and moments.{EVENT_TIMESTAMP} < events.happened_at + interval {view.reach} day
)

select
{selected(columns)}
from known
group by {", ".join([*entity, EVENT_TIMESTAMP])}
"""


def _indented(columns: list[str]) -> str:
    return ",\n".join(f"        {column}" for column in columns)


def _document(
    name: str, source: Source, features: list[_Feature], *, folder: str, history_days: int, days: int
) -> dict[str, object]:
    view = source.feature_views[name]
    table = source.tables[view.table]
    partitions = table.partitions
    zone = partitions.time_zone if partitions else "UTC"
    within = {
        "table": f"source('raw', '{view.table}')",
        "time": view.time,
        "partition": partitions.column if partitions else "",
        "days": days,
        "time_zone": zone,
    }
    described = f"Every row of {view.table} has its {view.time} on the date of its partition" + (
        f" or at most {days} days later." if days else "."
    )
    meta = {
        "owner": source.owners[0],
        "partition_column": EVENT_DATE,
        **({} if zone == "UTC" else {"time_zone": zone}),
        "dagster": {"history_days": history_days},
        "feature_view": {
            "entity": Inline(view.entity),
            "event_timestamp": EVENT_TIMESTAMP,
            "freshness_days": view.freshness_days,
            **({} if view.online else {"online": False}),
        },
    }
    return {
        "name": name,
        "description": plain(view.description),
        "config": {
            "schema": "features",
            "materialized": "incremental",
            "on_schema_change": "append_new_columns",
            "tags": Inline([folder]),
            "meta": meta,
        },
        "data_tests": [
            {"mlops.unique_combination": {"arguments": {"columns": Inline([*map(sql_name, view.entity), EVENT_TIMESTAMP])}}},
            {"mlops.happens_within": {"name": f"{name}_happens_within", "description": described, "arguments": within}},
        ],
        "columns": [column.document() for column in _contract(view, table, features)],
    }


def _contract(view: FeatureViewSection, table: RawTable, features: list[_Feature]) -> Iterator[DbtColumn]:
    for key in view.entity:
        column = table.columns[key]
        yield DbtColumn(name=key, type=column.type, description=column.description or f"{key} of {view.table}.", required=True)
    moment = "The moment from which the values are known."
    yield DbtColumn(name=EVENT_TIMESTAMP, type="timestamptz", description=moment, required=True)
    yield from (feature.column() for feature in features)
    yield DbtColumn(name=EVENT_DATE, type="date", description=f"Date of {EVENT_TIMESTAMP}; partition.", required=True)
    yield LOADED_AT_COLUMN
