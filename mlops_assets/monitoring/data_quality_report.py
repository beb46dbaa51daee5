"""`data_quality_report`: faults in the rows of a window as data, whatever the model predicts. One partition a window."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.core.check_rules import CheckRule
from mlops_assets.core.keys import DATA_QUALITY_REPORT
from mlops_assets.core.prediction_columns import BATCH
from mlops_assets.monitoring.data_quality import RULES, Expectation, QualityFinding, check_results, measure_quality
from mlops_assets.monitoring.monitor import MonitoringRun, MonitorOfSolution, Report, ReportedWindow
from mlops_assets.monitoring.monitored_windows import STAGED_WINDOW, WINDOW_AND_VERSION, Windows
from mlops_assets.monitoring.staged_rows import ROWS
from mlops_assets.schema.column_names import CHANNEL, MODEL_VERSION, PREDICTION_ID
from mlops_assets.schema.table_columns import arrow_schema, row_columns
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.monitoring.alerts import Alert


class DataQualityMonitor:
    """The monitor of the quality of the rows of a window as data."""

    title = "Data quality"
    description = "Missing, unseen, out of range, duplicate and constant values, rows and schema."
    kinds = ("duckdb",)
    columns = row_columns(QualityFinding)
    code_version = "1"
    asks_for_training = False

    def rules(self, name: str) -> Sequence[CheckRule]:
        """A check for each kind of finding."""
        return list(RULES.values())

    def reads(self, inputs: SolutionInputs) -> Sequence[dg.AssetKey]:
        """Nothing else."""
        return ()

    def measure(self, run: MonitoringRun, of_solution: MonitorOfSolution) -> Report:
        """The findings on every version and window."""
        findings: dict[tuple[str, int], list[QualityFinding]] = {}
        for version in run.versions:
            findings |= _inspect(run, version)
        by_window = {
            window: [finding for (key, _), part in findings.items() if key == window for finding in part]
            for window in run.windows.ranges
        }
        return Report(
            rows=_to_arrow(findings),
            check_results=check_results(run.inputs.key(DATA_QUALITY_REPORT), by_window),
            metadata={"summary": dg.MetadataValue.md(_summary(by_window))},
        )

    def find_alerts(self, reported: ReportedWindow, of_solution: MonitorOfSolution) -> "Iterable[Alert]":
        """The findings beyond their limits, those of the same rows together."""
        from mlops_assets.monitoring.alerts import quality_alerts

        return quality_alerts(reported)


MONITOR = DataQualityMonitor()


def _inspect(run: MonitoringRun, version: int) -> dict[tuple[str, int], list[QualityFinding]]:
    """The findings of every window on the rows that `version` predicted."""
    from mlops_assets.ml.reference import WHOLE

    connection, inputs, windows = run.connection, run.inputs, run.windows
    monitored_version = run.load(version)
    reference = monitored_version.reference
    described = {column["feature"]: column for column in reference.summary.columns.to_pylist() if column["slice"] == WHOLE}
    shares = dict(
        connection.execute(
            f"SELECT CAST({STAGED_WINDOW} AS VARCHAR), count(*) FILTER (WHERE {MODEL_VERSION} = {version}) / count(*) FROM {ROWS} "
            f"WHERE {CHANNEL} = '{BATCH}' GROUP BY 1"
        ).fetchall()
    )
    findings = {}
    for window, share in shares.items():
        # Of a window that several versions predicted, each is expected to have its share of the rows.
        expected = None
        if inputs.solution.spine.has_time:
            expected = reference.summary.rows / reference.partitions * _partitions(inputs, windows, window) * share
        if share:
            findings[window, version] = measure_quality(
                connection,
                rows=f"(FROM {ROWS} WHERE {MODEL_VERSION} = {version} AND {STAGED_WINDOW} = DATE '{window}')",
                expected=Expectation(
                    contract=monitored_version.contract,
                    reference=described,
                    rows=expected,
                    counted=f"{CHANNEL} = '{BATCH}'",
                    key=PREDICTION_ID,
                    moving=inputs.solution.monitoring.drift.ignore,
                ),
                limits=inputs.solution.monitoring.data_quality,
                false_alarms=inputs.solution.monitoring.drift.false_alarms,
            )
    return findings


def _partitions(inputs: SolutionInputs, windows: Windows, window: str) -> int:
    """How many partitions of predictions lie in a window, before the last one that the solution declares."""
    part, last = windows.ranges[window], inputs.solution.partitions.end
    end = min(part.end, last) if last else part.end
    count, day = 0, part.start
    while day < end:
        day = inputs.partitions.time_window_for_partition_key(day.isoformat()).end.date()
        count += 1
    return count


def _to_arrow(findings: Mapping[tuple[str, int], list[QualityFinding]]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {"window": window, MODEL_VERSION: version, **asdict(finding)}
            for (window, version), part in findings.items()
            for finding in part
        ],
        schema=arrow_schema({**WINDOW_AND_VERSION, **row_columns(QualityFinding)}),
    )


def _summary(findings: Mapping[str, list[QualityFinding]]) -> str:
    lines = []
    for window, part in findings.items():
        alerts = [f"{finding.check.replace('_', ' ')}: {finding.feature}" for finding in part if finding.alert]
        lines.append(f"| {window} | {len(alerts)} | {'; '.join(alerts[:5])}{' ...' if len(alerts) > 5 else ''} |")
    return "| window | findings | |\n|---|---|---|\n" + "\n".join(lines)
