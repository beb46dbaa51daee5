"""Monitors that are functions: of the rows of one window and version to measures, each a value beside its limit.

Table, checks, alerts, the section of the page and the plot are the same for all of them.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from mlops_assets.core.check_rules import FINDINGS, MOST_EXAMPLES, CheckRule, PartitionCheckResult
from mlops_assets.lake.sql import quote
from mlops_assets.monitoring.monitor import MEASURE_COLUMNS, MonitoringRun, MonitorOfSolution, Report, ReportedWindow
from mlops_assets.monitoring.monitored_windows import STAGED_WINDOW, WINDOW_AND_VERSION, MonitoredVersion
from mlops_assets.monitoring.staged_rows import ROWS
from mlops_assets.schema.column_names import MODEL_VERSION, internal
from mlops_assets.schema.table_columns import arrow_schema
from mlops_assets.stages.execution import permanent_failure
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.monitoring.alerts import Alert
    from mlops_assets.serving.bundle import Bundle

_WINDOW_ROWS, _HOLDOUT_ROWS = internal("window_rows"), internal("holdout_rows")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure of one window: `value` (None where there is none) of `subject`, a column or another name, beside its `limit`.

    It alerts when the value is greater than the limit; with `is_least`, when it is less. `sentence` says the value in words; without
    one, value and limit are said. `condition` is SQL that is true for the rows that show it.
    """

    subject: str
    value: float | None
    limit: float
    is_least: bool = False
    sentence: str = ""
    condition: str | None = None

    @property
    def alert(self) -> bool:
        """Whether the value is beyond the limit."""
        return self.value is not None and (self.value < self.limit if self.is_least else self.value > self.limit)

    @property
    def words(self) -> str:
        """The measure in words."""
        value = "not defined" if self.value is None else f"{self.value:.4g}"
        return self.sentence or f"{value}, limit {self.limit:.4g}"


@dataclass(frozen=True)
class MonitoredWindow:
    """The subject of a monitor: the predictions of one version in one window.

    `rows` and `reference_rows` are relations of SQL on `connection`: the predictions with their features and the label (null until it is
    known), and the hold-out of the version with its predictions, a sample of a large one. `load_bundle` reads the version's model.
    """

    connection: duckdb.DuckDBPyConnection
    inputs: SolutionInputs
    window: str
    version: MonitoredVersion
    rows: str
    reference_rows: str
    load_bundle: "Callable[[], Bundle]"

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of the result of `sql`."""
        return self.connection.execute(sql).fetchall()


@dataclass(frozen=True)
class FunctionMonitor:
    """A monitor that is a function of a `MonitoredWindow` and its parameters; the arguments of `monitor` are its attributes."""

    function: Callable[..., Iterable[Measure]]
    title: str
    description: str
    asks_for_training: bool
    kinds = ("duckdb",)
    code_version = "1"
    columns = MEASURE_COLUMNS

    def __call__(self, window: MonitoredWindow, **parameters: Any) -> Iterable[Measure]:
        """The measures of one window."""
        return self.function(window, **parameters)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function, eval_str=True)

    def rules(self, name: str) -> Sequence[CheckRule]:
        """One check, which warns."""
        return [CheckRule(name, self.description, blocking=False, evidence=FINDINGS)]

    def reads(self, inputs: SolutionInputs) -> Sequence[dg.AssetKey]:
        """Nothing else."""
        return ()

    def measure(self, run: MonitoringRun, of_solution: MonitorOfSolution) -> Report:
        """The measures of every version and window. Raises Failure for a measure of a monitor that SQL cannot compute."""
        measures: dict[tuple[str, int], list[Measure]] = {}
        for version in run.versions:
            monitored_version = run.load(version)
            run.connection.register(_HOLDOUT_ROWS, monitored_version.reference.rows)
            load_bundle = cache(partial(run.load_bundle, version))
            for window in run.windows.ranges:
                run.connection.execute(
                    f"CREATE OR REPLACE TEMP VIEW {_WINDOW_ROWS} AS SELECT * EXCLUDE ({quote(STAGED_WINDOW)}) FROM {ROWS} "
                    f"WHERE {MODEL_VERSION} = {version} AND {STAGED_WINDOW} = DATE '{window}'"
                )
                if not run.connection.execute(f"SELECT 1 FROM {_WINDOW_ROWS} LIMIT 1").fetchall():
                    continue
                monitored = MonitoredWindow(
                    run.connection,
                    run.inputs,
                    window,
                    monitored_version,
                    rows=_WINDOW_ROWS,
                    reference_rows=_HOLDOUT_ROWS,
                    load_bundle=load_bundle,
                )
                try:
                    measures[window, version] = list(self(monitored, **of_solution.parameters))
                except duckdb.ProgrammingError as error:
                    raise permanent_failure(f"The monitor {of_solution.name} cannot be computed: {error}") from error
        results = [_result(run, of_solution, window, measures) for window in run.windows.ranges]
        return Report(
            rows=_to_arrow(measures),
            check_results=results,
            metadata={"summary": dg.MetadataValue.md(_summary(measures)), **_plot(self.title, _series(measures))},
        )

    def find_alerts(self, reported: ReportedWindow, of_solution: MonitorOfSolution) -> "Iterable[Alert]":
        """The measures beyond their limits."""
        from mlops_assets.monitoring.alerts import Alert, report_rows

        for row in report_rows(reported.connection, reported.inputs, of_solution.stage, reported.window):
            if row["alert"]:
                yield Alert(
                    source=self.title.lower(),
                    version=row[MODEL_VERSION],
                    feature=row["subject"],
                    sentence=row["sentence"],
                    rows=row["condition"],
                    order=None,
                )


def monitor(
    description: str, *, asks_for_training: bool = False
) -> Callable[[Callable[..., Iterable[Measure]]], FunctionMonitor]:
    """Declare the function below as a monitor; `description` is that of its check. Its keyword arguments are parameters in YAML.

    A window in which a monitor alerts that `asks_for_training` is a bad one for the retraining decision.
    """

    def declare(function: Callable[..., Iterable[Measure]]) -> FunctionMonitor:
        title = function.__name__.replace("_", " ").capitalize()
        return FunctionMonitor(function, title, description, asks_for_training)

    return declare


def _result(
    run: MonitoringRun, of_solution: MonitorOfSolution, window: str, measures: Mapping[tuple[str, int], Sequence[Measure]]
) -> PartitionCheckResult:
    of_window = [measure for (key, _), part in measures.items() if key == window for measure in part]
    alerts = [measure for measure in of_window if measure.alert]
    [rule] = of_solution.monitor.rules(of_solution.short_name)
    result = rule.result(
        run.inputs.key(of_solution.stage),
        passed=not alerts,
        metadata={
            "measured": len(of_window),
            "alerts": len(alerts),
            "maximum_alerts": 0,
            "examples": dg.MetadataValue.json(
                [f"{measure.subject}: {measure.words}" for measure in (alerts or of_window)[:MOST_EXAMPLES]]
            ),
        },
        description="; ".join(f"{measure.subject}: {measure.words}" for measure in alerts[:MOST_EXAMPLES]) or None,
    )
    return PartitionCheckResult.from_result(result, window)


def _to_arrow(measures: Mapping[tuple[str, int], Sequence[Measure]]) -> "pa.Table":
    import pyarrow as pa

    columns = {**WINDOW_AND_VERSION, **MEASURE_COLUMNS}
    rows = [
        (window, version, measure.subject, measure.value, measure.limit, measure.alert, measure.words, measure.condition)
        for (window, version), part in measures.items()
        for measure in part
    ]
    return pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows], schema=arrow_schema(columns))


def _summary(measures: Mapping[tuple[str, int], Sequence[Measure]]) -> str:
    lines = [
        f"| {window} | {version} | {measure.subject} | {measure.words} | {'**alert**' if measure.alert else ''} |"
        for (window, version), part in measures.items()
        for measure in part
    ]
    return "| window | version | | | |\n|---|---|---|---|---|\n" + "\n".join(lines)


def _series(measures: Mapping[tuple[str, int], Sequence[Measure]]) -> dict[str, list[tuple[str, float | None, float]]]:
    """The measures of each subject in order of time: window, value, limit."""
    series: dict[str, list[tuple[str, float | None, float]]] = {}
    for (window, _), part in sorted(measures.items()):
        for measure in part:
            series.setdefault(measure.subject, []).append((window, measure.value, measure.limit))
    return series


def _plot(title: str, series: Mapping[str, Sequence[tuple[str, float | None, float]]]) -> dict[str, Any]:
    from mlops_assets.ml.monitoring_plots import measures_plot
    from mlops_assets.training.evaluation_page import plot_metadata

    return plot_metadata({title.lower(): measures_plot(title, series)}) if series else {}
