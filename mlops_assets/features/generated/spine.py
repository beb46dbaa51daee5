"""The spine of a solution that names a raw table: the dbt model that a person would write for it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from mlops_assets.features.generated.dbt_model import (
    LOADED_AT_COLUMN,
    DbtColumn,
    GeneratedModel,
    Inline,
    plain,
    selected,
    source_reference,
    sql_name,
    sql_value,
)
from mlops_assets.features.generated.snapshots import SNAPSHOT_COLUMNS, snapshot_query
from mlops_assets.features.sql_expressions import Path, expression_columns, expression_type
from mlops_assets.schema.column_names import LOADED_AT, ROW_KEY
from mlops_assets.schema.configuration_errors import ConfigurationError, ErrorCollector, nearest
from mlops_assets.schema.declarations import DeclaredTable
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.table_columns import accepted_value

_INTEGERS = ("tinyint", "smallint", "integer", "bigint")


def derive_spine(
    solution: Solution, *, origin: str, tables: Mapping[str, DeclaredTable], entities: Mapping[str, tuple[str, ...]]
) -> GeneratedModel:
    """The dbt model of the spine of `solution`, whose `spine.table` is one of the raw `tables`; `origin` is the file that declares it.

    `entities` are the keys of the feature views by name. Raises ConfigurationError for a table, column or expression that does not fit.
    """
    declared = tables.get(solution.spine.table or "")
    if declared is None:
        message = f"there is no raw table {solution.spine.table!r}; {nearest(solution.spine.table or '', list(tables))}"
        raise ConfigurationError(("spine", "table"), message)
    columns, errors = _SpineColumns(solution, declared), ErrorCollector()
    partition, spine = solution.partitions.column, solution.spine
    of_time: tuple[tuple[Callable[[], None], ...], ...] = ((), ())
    if spine.has_time:
        of_time = (
            (lambda: columns.add(spine.prediction_time, ("spine", "prediction_time"), required=True),),
            (lambda: columns.add(spine.label_time, ("spine", "label_time")),),
        )
    steps: tuple[Callable[[], None], ...] = (
        columns.add_key,
        columns.add_partition,
        *of_time[0],
        *(partial(columns.add, name, path) for name, path in _used_columns(solution, entities)),
        lambda: columns.add(spine.label, ("spine", "label"), tests=columns.label_tests()),
        *of_time[1],
        *(partial(columns.add, name, ("spine", "expressions", name)) for name in spine.expressions),
    )
    for step in steps:
        with errors.collect():
            step()
    errors.raise_errors()
    lines, table = selected([*columns.selected, LOADED_AT]), source_reference(declared.name)
    query = f"select\n{lines}\nfrom {table}\nwhere {{{{ mlops.in_window('{partition}') }}}}\n"
    contract, tests = [*columns.contract, LOADED_AT_COLUMN], {}
    if not spine.has_time:
        query = snapshot_query(solution, lines=lines, source=table, columns=[column.name for column in columns.contract])
        contract = [*columns.contract, *SNAPSHOT_COLUMNS, LOADED_AT_COLUMN]
        keys = [plain(sql_name(spine.key)), partition]
        tests = {"data_tests": [{"mlops.unique_combination": {"arguments": {"columns": keys}}}]}
    zone = {} if solution.partitions.time_zone == "UTC" else {"time_zone": solution.partitions.time_zone}
    return GeneratedModel(
        name=solution.spine_model,
        folder=f"solutions/{solution.name}",
        origin=origin,
        sql=query,
        document={
            "name": solution.spine_model,
            "description": plain(f"Who is predicted, when, and what happened. {solution.description}"),
            "config": {
                "schema": solution.name,
                "alias": "spine",
                "materialized": "incremental",
                "tags": Inline([solution.name]),
                "meta": {"owner": solution.owners[0], "partition_column": partition, **zone},
            },
            **tests,
            "columns": [column.document() for column in contract],
        },
    )


def _used_columns(solution: Solution, entities: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, Path]]:
    """The columns that features and weights need, with where the YAML names them."""
    for position, source in enumerate(solution.features):
        for number, name in enumerate(source.request or ()):
            yield name, ("features", position, "request", number)
        for name in entities.get(source.view or "", ()):
            yield name, ("features", position, "view")
    if solution.training.sample_weight is not None:
        yield solution.training.sample_weight, ("training", "sample_weight")


class _SpineColumns:
    """The columns of a spine as they are added: the lines of its SQL and its contract."""

    def __init__(self, solution: Solution, declared: DeclaredTable):
        self._solution = solution
        self._declared = declared
        self._types = {name: column.type for name, column in declared.table.columns.items()}
        self._place = f"the raw table {declared.name}"
        self.selected: list[str] = []
        self.contract: list[DbtColumn] = []

    def add(self, name: str, path: Path, *, required: bool = False, tests: tuple[Any, ...] = ()) -> None:
        """Add the column `name` once; `path` is where the YAML names it. A `required` one must have a value in every row."""
        if any(column.name == name for column in self.contract):
            return
        if name in self._solution.spine.expressions:
            self._add_expression(name, required=required, tests=tests)
            return
        columns = self._declared.table.columns
        if name not in columns:
            known = [*columns, *self._solution.spine.expressions]
            message = f"{self._place} has no column {name!r}; {nearest(name, known)}; or compute it in `spine.expressions`"
            raise ConfigurationError(path, message)
        column, file = columns[name], self._declared.file
        if required and not column.required and name != self._partition_of_table:
            message = f"{self._place} may lack {name}, which every prediction needs: say `required: true`"
            raise ConfigurationError(path, f"{message} in defs/{file.parent.name}/{file.name}")
        self.selected.append(sql_name(name))
        self.contract.append(
            DbtColumn(
                name=name,
                type=column.type,
                description=column.description or f"{name} of {self._place}.",
                required=required or column.required,
                tests=tests,
            )
        )

    def add_key(self) -> None:
        """Add the key: a column, or what is made from the content of a row where the YAML names none."""
        spine = self._solution.spine
        # A row of a table without time is in each of its snapshots.
        tests = ("unique",) if spine.has_time else ()
        if spine.key != ROW_KEY or ROW_KEY in self._types or ROW_KEY in spine.expressions:
            self.add(spine.key, ("spine", "key"), required=True, tests=tests)
            return
        # The key stays what it is when the label comes.
        later = {spine.label, spine.label_time, *self._columns_of_label()} - {spine.prediction_time}
        content = [sql_name(name) for name in self._types if name not in later]
        partition = ", ".join([*([] if spine.has_time else [self._solution.partitions.column]), *content])
        label = f"({sql_value(spine.expressions[spine.label])})" if spine.label in spine.expressions else sql_name(spine.label)
        number = f"row_number() over (partition by {partition} order by {label})"
        value = f"md5(to_json(row({', '.join(content)}))::varchar) || '-' || {number}"
        self.selected.append(f"{value} as {ROW_KEY}")
        description = "Made from the content of the row, without the label, and counted where rows are alike."
        self.contract.append(DbtColumn(name=ROW_KEY, type="varchar", description=description, required=True, tests=tests))

    def _columns_of_label(self) -> set[str]:
        """The columns of the table from which the label is computed, which are known with it."""
        label = self._solution.spine.label
        expression = self._solution.spine.expressions.get(label)
        return expression_columns(expression, ("spine", "expressions", label)) if expression else set()

    def add_partition(self) -> None:
        """Add the DATE column of the partitions: that of the table, an expression, the date of the prediction time, or of the snapshot."""
        if not self._solution.spine.has_time:
            column = self._solution.partitions.column
            if self._partition_of_table is not None:
                message = f"{self._place} is partitioned by {self._partition_of_table}: give prediction_time and label_time"
                raise ConfigurationError(("spine", "table"), message)
            self.selected.append(sql_name(column))
            description = "The day that the snapshot of the table stands for; partition."
            self.contract.append(DbtColumn(name=column, type="date", description=description, required=True))
            return
        partitions, moment = self._solution.partitions, self._solution.spine.prediction_time
        path: Path = ("partitions", "column")
        of_table = self._partition_of_table
        if of_table not in (None, partitions.column):
            message = f"{self._place} is partitioned by {of_table}, and a spine that is derived from it too: write {of_table}"
            raise ConfigurationError(path, message)
        expressions = self._solution.spine.expressions
        if partitions.column in self._declared.table.columns or partitions.column in expressions:
            self.add(partitions.column, path, required=True)
            return
        value = f"({sql_value(expressions[moment])})" if moment in expressions else sql_name(moment)
        text = value.replace("\\", "\\\\").replace("'", "\\'")
        self.selected.append(f"{{{{ mlops.business_date('{text}') }}}} as {sql_name(partitions.column)}")
        description = f"Date of {moment} in {partitions.time_zone}; partition."
        self.contract.append(DbtColumn(name=partitions.column, type="date", description=description, required=True))

    def label_tests(self) -> tuple[Any, ...]:
        """The data test of the label's values, where they are known."""
        label = self._solution.spine.label
        column = self._declared.table.columns.get(label)
        if column is not None and column.accepted is not None:
            return (_accepted([accepted_value(text, column.type) for text in column.accepted]),)
        if self._solution.problem != "binary_classification":
            return ()
        if label in self._solution.spine.expressions:
            is_whole = self._expression_type(label).lower() in _INTEGERS
        else:
            is_whole = column is not None and column.type in _INTEGERS
        return (_accepted([0, 1]),) if is_whole else ()

    @property
    def _partition_of_table(self) -> str | None:
        partitions = self._declared.table.partitions
        return partitions.column if partitions else None

    def _expression_type(self, name: str) -> str:
        expression, path = self._solution.spine.expressions[name], ("spine", "expressions", name)
        if name in self._declared.table.columns:
            raise ConfigurationError(path, f"{self._place} has a column {name!r}: give the expression another name")
        return expression_type(expression, columns=self._types, of=self._place, path=path)

    def _add_expression(self, name: str, *, required: bool, tests: tuple[Any, ...]) -> None:
        data_type, expression = self._expression_type(name), self._solution.spine.expressions[name]
        label = "Label: " if name == self._solution.spine.label else ""
        self.selected.append(f"({sql_value(expression)}) as {sql_name(name)}")
        self.contract.append(
            DbtColumn(name=name, type=data_type, description=f"{label}{expression}", required=required, tests=tests)
        )


def _accepted(values: Sequence[Any]) -> dict[str, Any]:
    if all(isinstance(value, str) for value in values):
        return {"accepted_values": {"arguments": {"values": Inline(map(plain, values))}}}
    return {"accepted_values": {"arguments": {"values": Inline(values), "quote": False}}}
