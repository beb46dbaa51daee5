"""The protocol of a monitor, its input, and the monitors of a solution. The monitors of the platform are listed in `monitors.py`.

A monitor is a report on the windows of predictions: an asset with a table of its own, checks, alerts, a place on the page of the window,
and, if it says so, a reason for another training.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.check_rules import CheckRule, PartitionCheckResult
from mlops_assets.core.settings import Settings
from mlops_assets.monitoring.monitored_windows import MonitoredVersion, Windows, load_monitored_version
from mlops_assets.schema.configuration_errors import ConfigurationError, ErrorCollector
from mlops_assets.schema.monitoring_section import Monitoring
from mlops_assets.schema.parameters import check_parameters
from mlops_assets.schema.registry import Registry
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.table_columns import TableColumn
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import read_bundle

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.monitoring.alerts import Alert
    from mlops_assets.serving.bundle import Bundle


MEASURE_COLUMNS: Mapping[str, TableColumn] = {
    "subject": TableColumn(type="VARCHAR", nullable=False, description="The column, or another name of what was measured."),
    "value": TableColumn(type="DOUBLE", description="The measured value; null where there is none."),
    "limit": TableColumn(type="DOUBLE", nullable=False, description="The value beyond which it alerts."),
    "alert": TableColumn(type="BOOLEAN", nullable=False, description="Whether the limit is passed."),
    "sentence": TableColumn(type="VARCHAR", nullable=False, description="The measure in words."),
    "condition": TableColumn(
        type="VARCHAR", description="SQL that is true for the predictions that show it; null where none does."
    ),
}
"""Columns that the table of every monitor of a team has; the page of a window shows them."""


@dataclass(frozen=True)
class MonitoringRun:
    """The windows of one materialization, whose rows are staged (`staged_rows.ROWS`), and the `versions` that predicted them."""

    context: dg.AssetExecutionContext
    connection: duckdb.DuckDBPyConnection
    inputs: SolutionInputs
    registry: ModelRegistry
    settings: Settings
    windows: Windows
    versions: Sequence[int]

    def load(self, version: int) -> MonitoredVersion:
        """Contract and reference of one of the versions."""
        return load_monitored_version(self.inputs, self.registry, self.settings, version)

    def load_bundle(self, version: int) -> "Bundle":
        """The model of one of the versions."""
        return read_bundle(self.registry, self.settings, self.registry.get(self.inputs.name, version))


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a monitor. `rows` hold the window in the text column `window`, the version in `model_version`, and the monitor's columns.

    `metadata` is shown at the last window of the run, `window_metadata` at each window.
    """

    rows: "pa.Table"
    check_results: Sequence[PartitionCheckResult]
    metadata: Mapping[str, Any]
    window_metadata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportedWindow:
    """A window that was reported on. Its rows are staged, as those of a `MonitoringRun` are."""

    connection: duckdb.DuckDBPyConnection
    inputs: SolutionInputs
    window: str
    monitored_versions: Mapping[int, MonitoredVersion]


@runtime_checkable
class Monitor(Protocol):
    """A report on the windows of predictions.

    `title` is its name on pages, and in lower case the source of its alerts. `columns` of its table, with what they hold, stand behind
    `window_start` and `model_version`. `asks_for_training` makes a window bad in which it alerts.
    """

    title: str
    description: str
    kinds: Collection[str]

    @property
    def columns(self) -> Mapping[str, TableColumn]:
        """The columns of its table."""
        ...

    code_version: str
    asks_for_training: bool

    def rules(self, name: str) -> Sequence[CheckRule]:
        """The checks of its asset; `name` is what the YAML file calls the monitor."""
        ...

    def reads(self, inputs: SolutionInputs) -> Sequence[dg.AssetKey]:
        """Return the assets that it reads beside the predictions, their outcomes, and the versions."""
        ...

    def measure(self, run: MonitoringRun, of_solution: "MonitorOfSolution") -> Report:
        """The report on the windows of `run`."""
        ...

    def find_alerts(self, reported: "ReportedWindow", of_solution: "MonitorOfSolution") -> "Iterable[Alert]":
        """The alerts of one window that was reported on, the worst first, with the rows that show them."""
        ...


@dataclass(frozen=True)
class MonitorOfSolution:
    """A monitor with its name and its parameters in the YAML file of a solution. `is_own` tells that it is the team's."""

    name: str
    monitor: Monitor
    parameters: Mapping[str, Any]
    is_own: bool

    @property
    def short_name(self) -> str:
        """The name without the module of an import path: that of its check."""
        return self.name.rpartition(":")[2]

    @property
    def stage(self) -> str:
        """The name of its asset and of its table."""
        return f"{self.short_name}_report"


MONITORS = Registry("monitor", group="mlops_assets.monitors", builtin="mlops_assets.monitoring.monitors", protocol=Monitor)  # type: ignore[type-abstract]


def builtin_monitors() -> list[MonitorOfSolution]:
    """The monitors that every solution has: those whose section of the YAML has a default."""
    return [of_solution for of_solution in _of_platform() if Monitoring.model_fields[of_solution.name].default is not None]


def further_monitors(solution: Solution) -> list[MonitorOfSolution]:
    """The monitors that `solution` names: those of the platform that not every solution has, and those of the team."""
    asked = [
        of_solution
        for of_solution in _of_platform()
        if Monitoring.model_fields[of_solution.name].default is None
        and getattr(solution.monitoring, of_solution.name) is not None
    ]
    own = solution.monitoring.own.items()
    return [*asked, *(MonitorOfSolution(name, MONITORS.get(name), parameters, is_own=True) for name, parameters in own)]


def monitors_of(solution: Solution) -> list[MonitorOfSolution]:
    """All monitors of `solution`."""
    return [*builtin_monitors(), *further_monitors(solution)]


def _of_platform() -> list[MonitorOfSolution]:
    return [MonitorOfSolution(name, MONITORS.get(name), {}, is_own=False) for name in MONITORS.names() if MONITORS.is_own(name)]


def measuring_monitors(solution: Solution) -> list[MonitorOfSolution]:
    """The monitors of `solution` whose tables hold measures: all but those with a section of their own on the page."""
    return [
        solution_monitor
        for solution_monitor in monitors_of(solution)
        if solution_monitor.monitor.columns.keys() >= MEASURE_COLUMNS.keys()
    ]


def check_monitors(solution: Solution, stages: Collection[str]) -> None:
    """Raise ConfigurationError for a monitor of the team that does not exist, has other parameters, or a name among `stages`."""
    stage_names, errors = set(stages), ErrorCollector()
    for name, parameters in solution.monitoring.own.items():
        path = ("monitoring", "own", name)
        with errors.collect():
            monitor = MONITORS.check(name, path)
            if MONITORS.is_own(name):
                message = f"{name} is built in: every solution has it, with the parameters of `monitoring.{name}`"
                raise ConfigurationError(path, message)
            if lacking := [column for column in MEASURE_COLUMNS if column not in monitor.columns]:
                raise ConfigurationError(
                    path, f"the table of {name} lacks the columns {', '.join(lacking)}, which the page shows"
                )
            check_parameters(monitor if callable(monitor) else monitor.measure, parameters, path, name)
            stage = MonitorOfSolution(name, monitor, parameters, is_own=True).stage
            if stage in stage_names:
                raise ConfigurationError(path, f"there is another stage that is called {stage}")
            stage_names.add(stage)
    errors.raise_errors()
